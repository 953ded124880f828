//! The bare handler: an HTTP server of the same framework with as many workers, which reads the
//! same body into typed fields, answers the same ids, and keeps nothing. What a server costs that
//! makes no promise.
//!
//! It runs in a process of its own (`eclusa bench-handler`), so that its processor time can be read.

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::net::TcpListener;
use uuid::Uuid;

/// Largest body that it reads.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// An event as any handler would have it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read, since an event's fields must be; not used")]
struct Item<'a> {
    id: Uuid,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    event_data: &'a RawValue,
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Taken {
    id: Uuid,
    status: &'static str,
}

#[derive(Serialize)]
struct TakenList {
    accepted: usize,
    items: Vec<Taken>,
}

/// Serves on a free port of the loopback interface until standard input ends or it is killed, and
/// says where on standard output.
///
/// # Errors
/// When no port can be had.
pub async fn serve(workers: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(|| {
        // Its parent's end of the pipe closes also when the parent is killed.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let server = HttpServer::new(|| {
        App::new()
            .app_data(web::PayloadConfig::new(MAX_BODY))
            .route("/v1/events", web::post().to(post_events))
            .route("/health/ready", web::get().to(HttpResponse::Ok))
    })
    .workers(workers)
    .disable_signals()
    .listen(listener)?
    .run();
    println!("Listening on http://{address}");
    server.await?;
    Ok(())
}

async fn post_events(body: web::Bytes) -> HttpResponse {
    let taken = |item: Item| Taken {
        id: item.id,
        status: "stored",
    };
    if body.starts_with(b"[") {
        let Ok(items) = serde_json::from_slice::<Vec<Item>>(&body) else {
            return HttpResponse::BadRequest().finish();
        };
        let items: Vec<Taken> = items.into_iter().map(taken).collect();
        return HttpResponse::Accepted().json(TakenList {
            accepted: items.len(),
            items,
        });
    }
    match serde_json::from_slice::<Item>(&body) {
        Ok(item) => HttpResponse::Accepted().json(taken(item)),
        Err(_) => HttpResponse::BadRequest().finish(),
    }
}

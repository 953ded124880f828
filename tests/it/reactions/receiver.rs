//! An HTTP server that keeps what it receives.

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Request {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub struct Receiver {
    pub port: u16,
    pub received: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    server: ServerHandle,
}

impl Receiver {
    pub async fn start(
        answer: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static,
    ) -> Self {
        Self::start_slow(move |request| ready(answer(request))).await
    }

    /// The same with answers that take their time.
    pub async fn start_slow<F>(answer: impl Fn(&HttpRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = HttpResponse> + 'static,
    {
        let answer = Arc::new(answer);
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (Arc::clone(&received), Arc::clone(&connections));
        let server = HttpServer::new(move || {
            let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
            App::new().default_service(web::to(move |request: HttpRequest, body: String| {
                let headers = request
                    .headers()
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
                kept.lock().push(Request {
                    line: format!("{} {}", request.method(), request.uri()),
                    headers: headers.collect(),
                    body,
                });
                answer(&request)
            }))
        })
        .workers(1)
        .disable_signals()
        .on_connect(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .bind(("127.0.0.1", 0))
        .unwrap();
        let port = server.addrs()[0].port();
        let running = server.run();
        let server = running.handle();
        tokio::spawn(running);
        Self {
            port,
            received,
            connections,
            server,
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

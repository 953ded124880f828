//! Clients that go away while they wait, and servers that do.

use super::{Api, SOON, fresh_ispb, on, on_both_servers, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;
use reqwest::StatusCode;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

on_both_servers! {
    a_client_that_hangs_up_while_it_waits_leases_nothing,
}

async fn a_client_that_hangs_up_while_it_waits_leases_nothing(api: &Api) {
    let ispb = fresh_ispb();
    let address = api.url.strip_prefix("http://").unwrap();
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", start(&ispb));
    waiting.write_all(request.as_bytes()).await.unwrap();
    eventually(SOON, "it waits", async || {
        (api.level(&ispb).await.1 == [0]).then_some(())
    })
    .await;
    drop(waiting);
    api.make(&ispb, 1).await;
    // Another collector gets the message at once, although the lost one still has its place.
    let began = Instant::now();
    let answer = api.get(&start(&ispb)).await;
    assert_eq!(answer.ids().len(), 1);
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(api.level(&ispb).await.1.iter().sum::<u64>(), 1);
}

mod stopping {
    use super::{a_server_that_stops_ends_polls_with_a_usable_pull_next, on_both_stores};

    on_both_stores! {
        a_server_that_stops_ends_polls_with_a_usable_pull_next,
    }
}

async fn a_server_that_stops_ends_polls_with_a_usable_pull_next(place: &Place) {
    let mut app = on(place).start().await;
    let api = Api::of(&app);
    let ispb = fresh_ispb();
    let path = start(&ispb);
    let stopping = async {
        eventually(SOON, "it waits", async || {
            (api.level(&ispb).await.1 == [0]).then_some(())
        })
        .await;
        app.sigterm();
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(api.get(&path), stopping);
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    app.wait_exit(SOON).await;
    let app = on(place).start().await;
    let api = Api::of(&app);
    api.make(&ispb, 1).await;
    assert_eq!(api.get(&answer.next()).await.ids().len(), 1);
}

//! Clients that go away while they wait, and servers that do.

use super::{Api, SOON, fresh_ispb, on, on_both_servers, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;
use reqwest::StatusCode;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

on_both_servers! {
    a_client_that_hangs_up_while_it_waits_leases_nothing_and_leaves_its_place,
    a_client_that_closes_its_sending_side_counts_as_gone,
}

/// A client that has sent `start`, when it waits.
async fn waiting(api: &Api, ispb: &str) -> TcpStream {
    let address = api.url.strip_prefix("http://").unwrap();
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", start(ispb));
    waiting.write_all(request.as_bytes()).await.unwrap();
    eventually(SOON, "it waits", async || {
        (api.level(ispb).await.1 == [0]).then_some(())
    })
    .await;
    waiting
}

async fn a_client_that_hangs_up_while_it_waits_leases_nothing_and_leaves_its_place(api: &Api) {
    let ispb = fresh_ispb();
    drop(waiting(api, &ispb).await);
    api.make(&ispb, 1).await;
    // Another collector gets the message at once.
    let began = Instant::now();
    let answer = api.get(&start(&ispb)).await;
    assert_eq!(answer.ids().len(), 1);
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    // The session of the lost one, whose id no client knows, does not take a slot until it lapses.
    eventually(SOON, "the other one has its slot alone", async || {
        (api.level(&ispb).await == (0, vec![1])).then_some(())
    })
    .await;
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
    // Nor does one for which there were no messages: its wait is over some time.
    drop(waiting(api, &ispb).await);
    eventually(SOON, "its slot is free", async || {
        (api.level(&ispb).await == (0, vec![])).then_some(())
    })
    .await;
}

async fn a_client_that_closes_its_sending_side_counts_as_gone(api: &Api) {
    let ispb = fresh_ispb();
    let mut closed = waiting(api, &ispb).await;
    closed.shutdown().await.unwrap();
    api.make(&ispb, 1).await;
    eventually(SOON, "the message waits, and no session", async || {
        (api.level(&ispb).await == (1, vec![])).then_some(())
    })
    .await;
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

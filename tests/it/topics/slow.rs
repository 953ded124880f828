//! Clients that do not take what they are sent.

use super::{Ask, SOON, log_of};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eventually, memory_of};
use reqwest::StatusCode;
use serde_json::json;

on_both_stores! {
    a_client_that_takes_nothing_is_dropped_with_its_reason_and_goes_on_later,
    clients_that_take_nothing_are_bounded_together,
}

/// Much more than sockets hold.
const EVENTS: usize = 200;

async fn fill(app: &App, number: usize) {
    let pad = "x".repeat(100_000);
    for n in 0..number {
        let data = json!({"n": n, "pad": pad});
        let event = json!({"userId": "u", "eventType": "t", "eventData": data});
        let response = app.post("/v1/events", &event).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
}

async fn dropped(app: &App) -> f64 {
    let labels = [("reason", "slow")];
    app.metric_with("eclusa_topic_dropped_total", &labels).await
}

async fn a_client_that_takes_nothing_is_dropped_with_its_reason_and_goes_on_later(place: &Place) {
    let app = on(place).set("topics.patience", "5s").start().await;
    let mut slow = Ask::from("now").open(&app).await;
    let mut fast = Ask::from("now").open(&app).await;
    super::subscribers(&app, "newest", 2).await;
    let (all, ()) = tokio::join!(fast.ids(EVENTS), fill(&app, EVENTS));
    eventually(SOON, "the slow one is dropped", async || {
        (dropped(&app).await == 1.0).then_some(())
    })
    .await;
    app.wait_for_log(SOON, "subscriber dropped").await;
    let log = log_of(place, EVENTS).await;
    assert_eq!(all, log);
    // What it has been sent so far is in order. It is told why, if it reads soon enough.
    let mut seen = Vec::new();
    let mut reason = None;
    while let Ok(Some(block)) = slow.try_block().await {
        seen.extend(block.event_id());
        if let Some("error") = block.kind.as_deref() {
            reason = Some(block.data.unwrap()["reason"].clone());
        }
    }
    assert!(reason.is_none_or(|reason| reason == "slow"));
    assert!(seen.len() < EVENTS, "sockets hold less");
    let mut again = Ask::behind(&slow.last_id).open(&app).await;
    seen.extend(again.ids(EVENTS - seen.len()).await);
    assert_eq!(seen, log);
    assert_eq!(dropped(&app).await, 1.0, "the fast one stays");
}

async fn clients_that_take_nothing_are_bounded_together(place: &Place) {
    const CLIENTS: usize = 24;
    const BOUND: f64 = 8.0 * 1024.0 * 1024.0;
    let app = on(place)
        .set("topics.patience", "1h")
        .set("topics.max_in_flight", "8 MiB")
        .set("topics.max_streams", 64)
        .start()
        .await;
    fill(&app, EVENTS).await;
    log_of(place, EVENTS).await;
    let before = memory_of(app.pid()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Ask::from("beginning").open(&app).await;
        client.ids(1).await;
        clients.push(client);
    }
    super::subscribers(&app, "behind", CLIENTS).await;
    let under_way = app.metric("eclusa_topic_bytes").await;
    assert!(under_way <= BOUND + 1_000_000.0, "{under_way}");
    let grown = memory_of(app.pid()).unwrap().saturating_sub(before);
    assert!((grown as f64) < 6.0 * BOUND, "{grown} bytes more");
    // There is room for one that takes what it is sent: none of the others keeps what it does not take.
    let mut reading = Ask::from("beginning").until_the_end().open(&app).await;
    assert_eq!(reading.rest().await.0.len(), EVENTS);
    drop(clients);
    eventually(SOON, "all is given back", async || {
        let bytes = app.metric("eclusa_topic_bytes").await;
        (bytes == 0.0).then_some(())
    })
    .await;
}

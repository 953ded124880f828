//! Servers that are killed while they send.

use super::{Ask, SOON, log_of, post};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{eventually, free_port};
use std::collections::HashSet;

on_both_stores! {
    after_a_kill_nothing_is_missing_and_nothing_comes_twice,
    a_panic_of_the_shared_reader_costs_nothing,
    a_stream_that_breaks_while_it_sends_is_resumed,
}

async fn after_a_kill_nothing_is_missing_and_nothing_comes_twice(place: &Place) {
    const BATCHES: usize = 6;
    const BATCH: usize = 200;
    let mut app = on(place).set("http.port", free_port()).start().await;
    let mut seen = Vec::new();
    let mut ask = Ask::from("beginning");
    for round in 1..=BATCHES {
        post(&app, &["t"], BATCH).await;
        let mut stream = ask.open(&app).await;
        // It is killed while it sends: what is under way is lost.
        seen.extend(stream.ids(BATCH / 2).await);
        app.kill9();
        while let Ok(Some(block)) = stream.try_block().await {
            seen.extend(block.event_id());
        }
        ask = Ask::behind(&stream.last_id);
        app.start_again().await;
        assert!(seen.len() <= round * BATCH);
    }
    let log = log_of(place, BATCHES * BATCH).await;
    let mut stream = ask.open(&app).await;
    seen.extend(stream.ids(log.len() - seen.len()).await);
    assert_eq!(seen, log);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
}

async fn a_panic_of_the_shared_reader_costs_nothing(place: &Place) {
    let app = on(place).start().await;
    let mut stream = Ask::from("now").open(&app).await;
    super::subscribers(&app, "newest", 1).await;
    let first = post(&app, &["t"], 5).await;
    assert_eq!(stream.ids(5).await, first);
    app.set_failpoint("topics.tail_read", "0:2:panic")
        .await
        .unwrap();
    let second = post(&app, &["t"], 5).await;
    assert_eq!(stream.ids(5).await, second);
    let restarts = app
        .metric_with("eclusa_actor_restarts_total", &[("actor", "tail_reader")])
        .await;
    assert_eq!(restarts, 2.0);
}

async fn a_stream_that_breaks_while_it_sends_is_resumed(place: &Place) {
    // Of several parts.
    const EVENTS: usize = 600;
    let mut app = on(place).set("http.port", free_port()).start().await;
    post(&app, &["t"], EVENTS).await;
    let log = log_of(place, EVENTS).await;
    for action in ["1:1:panic", "1:1:kill"] {
        app.set_failpoint("topics.send", action).await.unwrap();
        let (mut seen, mut ask, mut breaks) = (Vec::new(), Ask::from("beginning"), 0);
        while seen.len() < EVENTS {
            let mut stream = ask.open(&app).await;
            while seen.len() < EVENTS
                && let Ok(Some(block)) = stream.try_block().await
            {
                seen.extend(block.event_id());
            }
            breaks += usize::from(seen.len() < EVENTS);
            ask = Ask::behind(&stream.last_id);
            if action.ends_with("kill") && breaks == 1 && seen.len() < EVENTS {
                eventually(SOON, "it dies", async || app.has_exited().then_some(())).await;
                app.start_again().await;
            }
        }
        assert_eq!(breaks, 1, "{action}");
        assert_eq!(seen, log);
    }
    // The panic has left no stream behind.
    super::subscribers(&app, "behind", 0).await;
    super::subscribers(&app, "newest", 0).await;
}

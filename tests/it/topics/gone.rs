//! Positions that mean nothing any more.

use super::{Ask, SOON, log_of, post, subscribers};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::store_contract::event;
use chrono::TimeDelta;
use eclusa::event::Event;
use eclusa::store::leases::Fenced;
use reqwest::StatusCode;
use serde_json::json;

on_both_stores! {
    positions_of_another_generation_are_gone_and_streams_of_it_end,
    positions_before_what_the_retention_has_deleted_are_gone,
    a_stream_ends_when_what_it_has_not_sent_is_deleted,
}

async fn positions_of_another_generation_are_gone_and_streams_of_it_end(place: &Place) {
    let app = on(place).start().await;
    post(&app, &["t"], 3).await;
    let mut stream = Ask::from("beginning").open(&app).await;
    stream.ids(3).await;
    subscribers(&app, "newest", 1).await;
    let id = stream.last_id.clone();
    place.store.new_generation().await.unwrap();
    assert_eq!(stream.reason().await, "generation");
    let labels = [("reason", "generation")];
    let dropped = app.metric_with("eclusa_topic_dropped_total", &labels).await;
    assert_eq!(dropped, 1.0);
    for ask in [Ask::behind(&id), Ask::from(&id)] {
        let told = ask.refused(&app, StatusCode::GONE).await;
        assert!(told.contains("another generation"), "{told}");
        assert!(told.contains("from=beginning"), "{told}");
    }
    // Nor is there a stream beyond the end of the log.
    let told = Ask::behind("2-999999999999")
        .refused(&app, StatusCode::GONE)
        .await;
    assert!(told.contains("beyond the end of the log"), "{told}");
    let mut again = Ask::from("beginning").open(&app).await;
    again.ids(3).await;
    assert!(again.last_id.starts_with("2-"), "{}", again.last_id);
}

/// Has events deleted that were received more than ten days ago.
async fn trim(place: &Place) {
    let lease = place.store.acquire("retention", "test", SOON).await;
    let lease = lease.unwrap().expect("no server has it");
    let trimmed = place.store.trim(&lease, 10, true, 0, 1_000).await.unwrap();
    assert!(matches!(trimmed, Fenced::Done(slice) if slice.deleted == 5));
    place.store.release(&lease).await.unwrap();
}

async fn positions_before_what_the_retention_has_deleted_are_gone(place: &Place) {
    // Without a day of their own.
    let received = |days| Event {
        event_id: uuid::Uuid::new_v4(),
        received_at: event().received_at - TimeDelta::days(days),
        ..event()
    };
    place.write((0..5).map(|_| received(11)).collect()).await;
    let kept: Vec<Event> = (0..5).map(|_| received(1)).collect();
    place.write(kept.clone()).await;
    let log = log_of(place, 10).await;
    let mut app = on(place).start().await;
    let mut stream = Ask::from("beginning").open(&app).await;
    assert_eq!(stream.ids(2).await, log[..2]);
    let second = stream.last_id.clone();
    stream.ids(3).await;
    let fifth = stream.last_id.clone();
    drop(stream);
    app.sigterm();
    app.wait_exit(SOON).await;
    trim(place).await;
    let bounds = place.store.log_bounds().await.unwrap();
    let position = fifth.split_once('-').unwrap().1;
    assert_eq!(bounds.deleted_to.to_string(), position);
    app.start_again().await;
    let told = Ask::behind(&second).refused(&app, StatusCode::GONE).await;
    assert!(
        told.contains("retention") && told.contains("from="),
        "{told}"
    );
    let kept: Vec<_> = kept.iter().map(|event| event.event_id).collect();
    for ask in [Ask::behind(&fifth), Ask::from("beginning")] {
        let mut stream = ask.open(&app).await;
        if ask.from.is_some() {
            // What is deleted lies before it, so its beginning is no position to go on from.
            let first = stream.block().await.unwrap();
            assert_eq!(first.event_id(), Some(log[5]));
        } else {
            assert_eq!(stream.ids(1).await, log[5..6]);
        }
        assert_eq!(stream.ids(4).await, log[6..]);
    }
    assert_eq!(log[5..], kept);
}

/// The log is not complete behind this position any more.
async fn delete_to(place: &Place, position: i64) {
    let update = format!("UPDATE log_floor SET deleted_to = {position}");
    match (&place.url, &place.folder) {
        (Some(url), _) => {
            let client = crate::harness::connect(url).await;
            client.batch_execute(&update).await.unwrap();
        }
        (None, folder) => {
            use diesel::Connection as _;
            use diesel::connection::SimpleConnection as _;
            let path = folder.as_ref().unwrap().path().join("eclusa.db");
            let path = path.display().to_string();
            let mut connection = diesel::SqliteConnection::establish(&path).unwrap();
            connection
                .batch_execute(&format!("PRAGMA busy_timeout = 10000; {update}"))
                .unwrap();
        }
    }
}

async fn a_stream_ends_when_what_it_has_not_sent_is_deleted(place: &Place) {
    // Much more than sockets hold.
    const EVENTS: usize = 200;
    let app = on(place).start().await;
    let pad = "x".repeat(100_000);
    for n in 0..EVENTS {
        let data = json!({"n": n, "pad": pad});
        let event = json!({"userId": "u", "eventType": "t", "eventData": data});
        let response = app.post("/v1/events", &event).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
    log_of(place, EVENTS).await;
    let mut stream = Ask::from("beginning").open(&app).await;
    let first = stream.event().await;
    assert_eq!(first.data.unwrap()["eventData"]["n"], 0);
    let end = place.store.log_bounds().await.unwrap().end;
    delete_to(place, end.0).await;
    // What was read before is sent, and then it is told.
    let (ids, last) = stream.rest().await;
    assert!(ids.len() < EVENTS - 1, "{}", ids.len());
    assert_eq!(last.kind.as_deref(), Some("error"));
    assert_eq!(last.data.unwrap()["reason"], "deleted");
    // One that begins with what is left has it all.
    let mut left = Ask::from("beginning").until_the_end().open(&app).await;
    assert_eq!(left.rest().await.0.len(), EVENTS);
}

//! What RabbitMQ refuses for its content, and streams that exist already.

use super::exchange::queue;
use super::*;
use crate::harness::{RabbitMq, confirming};

/// A server that takes no message of more than 20,000 bytes.
async fn narrow() -> (RabbitMq, String) {
    let rabbitmq = RabbitMq::start().await;
    rabbitmq
        .eval("application:set_env(rabbit, max_message_size, 20000)")
        .await;
    let url = rabbitmq.vhost().await;
    (rabbitmq, url)
}

/// Twenty events, of which one is too large.
async fn post_with_a_large_one(app: &App) {
    let events: Value = (0..20)
        .map(|n| {
            let padding = "x".repeat(if n == 12 { 30_000 } else { 10 });
            json!({"userId": "u", "eventType": "a", "eventData": {"n": n, "padding": padding}})
        })
        .collect();
    assert!(app.post("/v1/events", &events).await.status().is_success());
}

#[actix_rt::test]
async fn a_message_that_is_too_large_is_a_dead_letter_and_the_others_are_sent() {
    let place = Place::sqlite().await;
    let (_rabbitmq, url) = narrow().await;
    let app = start(&place, to_stream(&url, json!({"on_error": "dead_letter"}))).await;
    post_with_a_large_one(&app).await;
    let mut log = logged_ids(&place, &["*"]).await;
    let large = log.remove(12);
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(first_deliveries(&reader.ids()), log);
    caught_up(&app).await;
    let letters = app.get_json("/v1/dead-letters").await;
    let letters = letters["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["eventId"], large.as_str());
    assert_eq!(
        (&letters[0]["cause"], &letters[0]["origin"]),
        (&json!("follower"), &json!(FOLLOWER))
    );
    let error = letters[0]["error"].as_str().unwrap();
    assert!(error.contains("message size"), "{error}");
}

#[actix_rt::test]
async fn a_message_that_is_too_large_stops_the_outlet_before_it() {
    let place = Place::sqlite().await;
    let (rabbitmq, url) = narrow().await;
    let app = start(&place, to_stream(&url, json!({}))).await;
    post_with_a_large_one(&app).await;
    let log = logged(&place, &["*"]).await;
    let broken = state(&app, "broken").await;
    let reason = broken["reason"].as_str().unwrap();
    let large = &log[12];
    for word in [
        "message size".to_owned(),
        large.event.event_id.to_string(),
        format!("1-{}", large.position),
    ] {
        assert!(reason.contains(&word), "{reason}");
    }
    // What is before it is sent, and known to be.
    assert_eq!(broken["position"], format!("1-{}", log[11].position));
    let grown = "application:set_env(rabbit, max_message_size, 1000000)";
    rabbitmq.eval(grown).await;
    assert_eq!(command(&app, "resume", json!({})).await.0, 200);
    let ids = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&ids).await;
    assert_eq!(first_deliveries(&reader.ids()), ids);
}

#[actix_rt::test]
async fn a_stream_with_other_limits_is_used_and_another_queue_is_not() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString("stream".into());
    arguments.insert("x-queue-type".into(), kind);
    queue(&channel, "limited", arguments).await;
    queue(&channel, "classic", FieldTable::default()).await;
    let limits = json!({"stream": "limited", "max_length_bytes": "1 GB", "max_age": "7d"});
    let limited = to_stream(&url, limits);
    let classic = to_stream(&url, json!({"name": "classic", "stream": "classic"}));
    let app = start(&place, json!([limited[0], classic[0]])).await;
    post(&app, "a", 0..10).await;
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, "limited").await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
    app.wait_for_log(SOON, "exists with other limits").await;
    let line = app.wait_for_log(SOON, "follower waits").await;
    assert!(
        line.contains("classic") && line.contains("x-queue-type"),
        "{line}"
    );
    let labels = [("follower", "outlets.classic"), ("kind", "operator")];
    let failures = app.metric_with("eclusa_follower_failures_total", &labels);
    assert!(failures.await > 0.0);
}

//! An exchange with queues behind it, which are the operator's.

use super::*;
use crate::harness::{RabbitMq, confirming};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::{Channel, ExchangeKind};

pub async fn exchange(channel: &Channel) {
    let options = ExchangeDeclareOptions::default();
    let declared = channel.exchange_declare(
        "shop".into(),
        ExchangeKind::Topic,
        options,
        Default::default(),
    );
    declared.await.unwrap();
}

pub async fn queue(channel: &Channel, name: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(name.into(), options, arguments);
    declared.await.unwrap();
}

pub async fn bind(channel: &Channel, name: &str, key: &str) {
    let options = QueueBindOptions::default();
    let (queue, exchange, key) = (name.into(), "shop".into(), key.into());
    let bound = channel.queue_bind(queue, exchange, key, options, Default::default());
    bound.await.unwrap();
}

/// How many messages lie in a queue.
async fn depth(channel: &Channel, name: &str) -> u32 {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(name.into(), options, Default::default());
    declared.await.unwrap().message_count()
}

#[actix_rt::test]
async fn the_routing_key_is_the_events_type_or_that_of_the_settings() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    exchange(&channel).await;
    for (name, key) in [("orders", "order.*"), ("users", "user.*"), ("fixed", "all")] {
        queue(&channel, name, FieldTable::default()).await;
        bind(&channel, name, key).await;
    }
    let by_type = to_exchange(&url, json!({}));
    let fixed = to_exchange(&url, json!({"name": "fixed", "routing_key": "all"}));
    let app = start(&place, json!([by_type[0], fixed[0]])).await;
    for n in 0..5 {
        post(&app, "order.paid", 10 * n..10 * n + 5).await;
        post(&app, "user.left", 10 * n + 5..10 * n + 10).await;
    }
    for (name, types) in [
        ("orders", ["order.*"]),
        ("users", ["user.*"]),
        ("fixed", ["*"]),
    ] {
        let log = logged_ids(&place, &types).await;
        let mut reader = Reader::of_queue(&url, name).await;
        reader.all_of(&log).await;
        assert_eq!(reader.ids(), log, "{name}");
    }
}

#[actix_rt::test]
async fn a_message_that_no_queue_gets_holds_up_what_follows_until_one_is_bound() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    exchange(&channel).await;
    queue(&channel, "all", FieldTable::default()).await;
    bind(&channel, "all", "order.*").await;
    let outlets = to_exchange(&url, json!({"on_error": "dead_letter"}));
    let app = start(&place, outlets).await;
    post(&app, "order.paid", 0..20).await;
    caught_up(&app).await;
    assert_eq!(command(&app, "pause", json!({})).await.0, 200);
    post(&app, "order.paid", 20..30).await;
    post(&app, "user.left", 30..31).await;
    post(&app, "order.paid", 31..60).await;
    assert_eq!(command(&app, "resume", json!({})).await.0, 200);
    fails(&app, "operator").await;
    let line = app.wait_for_log(SOON, "no queue gets messages").await;
    assert!(
        line.contains("shop") && line.contains("user.left"),
        "{line}"
    );
    // It says nothing of the content.
    assert!(!line.contains("eventData"), "{line}");
    assert_eq!(depth(&channel, "all").await, 30, "nothing overtakes it");
    let shown = follower(&app).await;
    assert_eq!(
        (&shown["state"], &shown["behind"]["events"]),
        (&json!("running"), &json!(30))
    );
    bind(&channel, "all", "user.*").await;
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_queue(&url, "all").await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
    let letters = app.get_json("/v1/dead-letters").await;
    assert_eq!(letters["deadLetters"], json!([]));
}

#[actix_rt::test]
async fn an_exchange_that_is_missing_is_named_and_found_when_it_is_there() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let app = start(&place, to_exchange(&url, json!({}))).await;
    post(&app, "a", 0..10).await;
    fails(&app, "operator").await;
    let line = app.wait_for_log(SOON, "follower waits").await;
    assert!(line.contains("shop") && !line.contains("guest"), "{line}");
    let channel = confirming(&url).await;
    exchange(&channel).await;
    queue(&channel, "all", FieldTable::default()).await;
    bind(&channel, "all", "#").await;
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_queue(&url, "all").await;
    reader.all_of(&log).await;
    // What was sent between the two declarations may have come to no queue, and is sent again.
    assert_eq!(first_deliveries(&reader.ids()), log);
}

#[actix_rt::test]
async fn a_queue_that_is_full_is_waited_for_and_gets_everything_in_order() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    exchange(&channel).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(3));
    let reject = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), reject);
    queue(&channel, "small", arguments).await;
    bind(&channel, "small", "#").await;
    let app = start(&place, to_exchange(&url, json!({"window": 1}))).await;
    post(&app, "a", 0..20).await;
    fails(&app, "outage").await;
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_queue(&url, "small").await;
    reader.all_of(&log).await;
    assert_eq!(first_deliveries(&reader.ids()), log);
    assert_eq!(state(&app, "running").await["reason"], json!(null));
}

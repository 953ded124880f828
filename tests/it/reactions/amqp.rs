//! Messages that a reaction publishes, at a real broker.

use crate::harness::{Direction, Proxy, RabbitMq, confirming, eventually};
use eclusa::config::Sources;
use eclusa::reactions::amqp::AmqpMessage;
use eclusa::reactions::{Handler, HandlerError, Run};
use futures::future::join_all;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::{Channel, ExchangeKind};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn event(kind: &str, user: Option<&str>) -> Value {
    json!({
        "sequence": 1, "id": "0198c0de-0000-7000-8000-000000000001", "producer": "shop",
        "userId": user, "eventType": kind, "eventData": {"total": 5}, "sessionId": null,
        "timestamp": "2026-01-02T03:04:05Z", "receivedAt": "2026-01-02T03:04:06Z",
        "source": "http", "processed": false
    })
}

fn run(kind: &str) -> Run {
    let event = serde_json::from_value(event(kind, Some("u1"))).unwrap();
    Run::new("forward", 1, event)
}

/// A handler of the exchange `events` at `url`, with more lines of settings.
fn publisher_within(timeout: Duration, url: &str, lines: &str) -> AmqpMessage {
    let text = format!("url = \"{url}\"\nexchange = \"events\"\n{lines}");
    let broker = Sources::from_text("").load().unwrap().broker;
    AmqpMessage::new(&toml::from_str(&text).unwrap(), &broker, timeout).unwrap()
}

fn publisher(url: &str, lines: &str) -> AmqpMessage {
    publisher_within(SOON, url, lines)
}

/// The exchange `events`, and the queue `orders` that gets `order.*` of it. Both are durable.
async fn declare(channel: &Channel) {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel.exchange_declare(
        "events".into(),
        ExchangeKind::Topic,
        options,
        Default::default(),
    );
    declared.await.unwrap();
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("orders".into(), options, Default::default());
    declared.await.unwrap();
    let bound = channel.queue_bind(
        "orders".into(),
        "events".into(),
        "order.*".into(),
        QueueBindOptions::default(),
        Default::default(),
    );
    bound.await.unwrap();
}

async fn get(channel: &Channel) -> Option<BasicGetMessage> {
    let options = BasicGetOptions { no_ack: true };
    channel.basic_get("orders".into(), options).await.unwrap()
}

async fn failure(publisher: &AmqpMessage, run: &Run) -> String {
    match publisher.handle(run).await {
        Err(HandlerError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_published_with_its_properties() {
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    declare(&channel).await;
    for (persistent, mode) in [(true, 2), (false, 1)] {
        let publisher = publisher(&url, &format!("persistent = {persistent}"));
        assert_eq!(publisher.handle(&run("order.paid")).await, Ok(()));
        let message = get(&channel).await.unwrap().delivery;
        let body: Value = serde_json::from_slice(&message.data).unwrap();
        assert_eq!(body, event("order.paid", Some("u1")));
        assert_eq!(message.routing_key.as_str(), "order.paid");
        let properties = &message.properties;
        let text = |value: &Option<lapin::types::ShortString>| value.clone().unwrap().to_string();
        assert_eq!(text(properties.content_type()), "application/json");
        assert_eq!(
            text(properties.message_id()),
            "0198c0de-0000-7000-8000-000000000001.forward"
        );
        assert_eq!(text(properties.kind()), "order.paid");
        assert_eq!(*properties.timestamp(), Some(1_767_323_045));
        assert_eq!(*properties.delivery_mode(), Some(mode));
    }
}

#[tokio::test]
async fn the_routing_key_is_the_settings_or_the_events() {
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    declare(&channel).await;
    let fixed = publisher(&url, "routing_key = \"order.all\"");
    assert_eq!(fixed.handle(&run("user.left")).await, Ok(()));
    let key = get(&channel).await.unwrap().delivery.routing_key;
    assert_eq!(key.as_str(), "order.all");
    let computed = publisher(&url, "routing_key_from = \"'order.' + userId\"");
    assert_eq!(computed.handle(&run("user.left")).await, Ok(()));
    let key = get(&channel).await.unwrap().delivery.routing_key;
    assert_eq!(key.as_str(), "order.u1");
    // Another attempt would end alike.
    let event = serde_json::from_value(event("user.left", None)).unwrap();
    let without_user = Run::new("forward", 1, event);
    let by_type = publisher(&url, "");
    for (publisher, run, word) in [
        (&computed, without_user, "lacks what routing_key_from needs"),
        (
            &by_type,
            run(&"t".repeat(256)),
            "the routing key is too long",
        ),
    ] {
        match publisher.handle(&run).await {
            Err(HandlerError::Discard(reason)) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_that_no_queue_gets_is_a_failure_of_its_own_run() {
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    declare(&channel).await;
    let publisher = publisher(&url, "");
    // Side by side, so that an answer could be taken for another's.
    for _ in 0..20 {
        let runs = (0..16).map(async |n| match n % 2 {
            0 => assert_eq!(publisher.handle(&run("order.paid")).await, Ok(())),
            _ => {
                let reason = failure(&publisher, &run("user.left")).await;
                assert!(
                    reason.contains("exchange \"events\"") && reason.contains("key \"user.left\""),
                    "{reason}"
                );
            }
        });
        join_all(runs).await;
    }
    for _ in 0..160 {
        assert!(get(&channel).await.is_some());
    }
    assert!(get(&channel).await.is_none());
}

#[tokio::test]
async fn an_exchange_that_is_missing_is_named_and_found_when_it_is_there() {
    let url = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&url).await;
    let publisher = publisher(&url, "");
    for _ in 0..2 {
        let reason = failure(&publisher, &run("order.paid")).await;
        assert!(
            reason.contains("the exchange \"events\" does not exist"),
            "{reason}"
        );
        assert!(!reason.contains("guest"), "{reason}");
    }
    declare(&channel).await;
    assert_eq!(publisher.handle(&run("order.paid")).await, Ok(()));
    assert!(get(&channel).await.is_some());
}

#[tokio::test]
async fn a_broker_that_is_away_is_tried_again_over_a_new_connection() {
    let mut rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    let channel = confirming(&url).await;
    declare(&channel).await;
    let publisher = publisher(&url, "");
    assert_eq!(publisher.handle(&run("order.paid")).await, Ok(()));
    assert_eq!(publisher.handle(&run("order.paid")).await, Ok(()));
    let connections = r#"length([C || C <- rabbit_networking:connection_info_all([client_properties]),
        lists:member({<<"connection_name">>, longstr, <<"eclusa reactions">>},
                     proplists:get_value(client_properties, C))])"#;
    assert_eq!(rabbitmq.eval(connections).await, "1");
    rabbitmq.stop().await;
    let reason = failure(&publisher, &run("order.paid")).await;
    let server = format!("the broker 127.0.0.1:{}", rabbitmq.port());
    assert!(
        reason.contains(&server) && !reason.contains("guest"),
        "{reason}"
    );
    rabbitmq.start_again().await;
    eventually(SOON, "it is published again", async || {
        publisher.handle(&run("order.paid")).await.ok()
    })
    .await;
    let channel = confirming(&url).await;
    // The persistent ones have survived the restart.
    for _ in 0..3 {
        assert!(get(&channel).await.is_some());
    }
}

#[tokio::test]
async fn a_broker_that_is_silent_costs_the_time_limit_and_the_connection() {
    let rabbitmq = RabbitMq::shared().await;
    let net = Proxy::to(rabbitmq.port()).await;
    let url = rabbitmq.vhost().await;
    declare(&confirming(&url).await).await;
    let publisher = publisher_within(Duration::from_secs(2), &net.url(&url), "");
    eventually(SOON, "it is published", async || {
        publisher.handle(&run("order.paid")).await.ok()
    })
    .await;
    assert_eq!(net.open(), 1);
    net.drop_silently(Direction::Up);
    let reason = failure(&publisher, &run("order.paid")).await;
    assert!(
        reason.contains("has not confirmed the message within 2s"),
        "{reason}"
    );
    // Long before a heartbeat is missed.
    let run_again = run("order.paid");
    let again = failure(&publisher, &run_again);
    let anew = eventually(SOON, "it connects anew", async || {
        (net.open() == 2).then_some(())
    });
    futures::join!(again, anew);
    net.heal();
    eventually(SOON, "it is published again", async || {
        publisher.handle(&run("order.paid")).await.ok()
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let broker = Sources::from_text("").load().unwrap().broker;
    for (lines, key) in [
        ("", "amqp.url"),
        ("url = \"amqp://u:s3cret@h:port/%zz\"", "amqp.url"),
        (
            "url = \"amqp://h\"\nrouting_key_from = \"user\"",
            "amqp.routing_key_from",
        ),
    ] {
        let settings = toml::from_str(&format!("exchange = \"events\"\n{lines}")).unwrap();
        let invalid = AmqpMessage::new(&settings, &broker, SOON).unwrap_err();
        assert_eq!(invalid.key, key, "{invalid:?}");
        assert!(!invalid.reason.contains("s3cret"), "{invalid:?}");
    }
}

//! Publishers that know nothing of shards.

use super::{Fleet, event};
use crate::harness::{App, RabbitMq, confirming, eventually};
use futures::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const USERS: usize = 40;
const EACH: usize = 200;

/// Straight onto a queue, and confirmed.
pub(super) async fn put(channel: &Channel, queue: &str, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(2);
    put_with(channel, queue, body, properties).await;
}

pub(super) async fn put_with(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) {
    let options = BasicPublishOptions::default();
    let (exchange, key) = ("".into(), queue.into());
    let publishing = channel.basic_publish(exchange, key, options, body, properties);
    assert!(publishing.await.unwrap().await.unwrap().is_ack());
}

/// Each user's events one behind the other, by the exchange; nobody waits for a confirm before the
/// next message.
async fn publish(channel: &Channel, users: usize, each: usize) {
    publish_from(channel, users, 0, each).await;
}

/// `from..from + each` of every user.
async fn publish_from(channel: &Channel, users: usize, from: usize, each: usize) {
    let mut confirms = Vec::new();
    for n in from..from + each {
        for user in 0..users {
            let body = event(&format!("u{user}"), n).to_string();
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let (exchange, key) = ("eclusa.events".into(), "some.key".into());
            let confirm = channel
                .basic_publish(exchange, key, options, body.as_bytes(), properties)
                .await
                .unwrap();
            confirms.push(confirm);
        }
    }
    for confirm in join_all(confirms).await {
        assert!(confirm.unwrap().is_ack());
    }
}

#[tokio::test]
async fn the_messages_of_others_keep_their_order_while_replicas_die() {
    let mut fleet = Fleet::start(3, &[]).await;
    let channel = confirming(&fleet.broker).await;
    let dying = async {
        for _ in 0..2 {
            let before = fleet.count().await;
            eventually(SOON, "rows are written", async || {
                (fleet.count().await > before).then_some(())
            })
            .await;
            fleet.apps.remove(0).kill9();
        }
    };
    futures::join!(publish(&channel, USERS, EACH), dying);
    fleet.in_order(USERS, EACH).await;
    assert_eq!(
        fleet.apps[0]
            .metric("eclusa_events_dead_lettered_total")
            .await,
        0.0
    );
}

/// Before a message's events lie on their shards, and when they do and it is not acknowledged yet.
#[tokio::test]
async fn a_resharder_that_panics_loses_doubles_and_swaps_nothing() {
    const USERS: usize = 20;
    const ROUND: usize = 50;
    let fleet = Fleet::start(2, &[]).await;
    let channel = confirming(&fleet.broker).await;
    let points = ["resharder.publish", "resharder.after_confirm"];
    for (round, point) in points.into_iter().enumerate() {
        let before = fleet.restarts("resharder").await;
        // One of the two sorts, and nobody knows which.
        for app in &fleet.apps {
            app.set_failpoint(point, "1:1:panic").await.unwrap();
        }
        publish_from(&channel, USERS, round * ROUND, ROUND).await;
        eventually(SOON, point, async || {
            (fleet.restarts("resharder").await > before).then_some(())
        })
        .await;
        for app in &fleet.apps {
            app.set_failpoint(point, "off").await.unwrap();
        }
    }
    fleet.in_order(USERS, 2 * ROUND).await;
}

/// What was published when the alarm began may arrive when it ends, under ids of its own. It is not
/// published again and again meanwhile.
#[tokio::test]
async fn an_alarm_stores_messages_without_an_id_twice_at_most() {
    const MESSAGES: usize = 20;
    let rabbitmq = RabbitMq::start().await;
    let vhost = rabbitmq.vhost().await;
    let mut fleet = Fleet::start_at(std::slice::from_ref(&vhost), &[]).await;
    fleet.apps.remove(0).kill9();
    let channel = confirming(&vhost).await;
    for _ in 0..MESSAGES {
        put(
            &channel,
            "eclusa.events",
            br#"{"eventType":"no-id","userId":"u"}"#,
        )
        .await;
    }
    let watermark =
        |share: &str| format!("vm_memory_monitor:set_vm_memory_high_watermark({share})");
    rabbitmq.eval(&watermark("0.00001")).await;
    let alarms = async || rabbitmq.eval("rabbit_alarm:get_alarms()").await;
    eventually(SOON, "the alarm stands", async || {
        (alarms().await != "[]").then_some(())
    })
    .await;
    let app = App::builder()
        .postgres(&fleet.database)
        .rabbitmq(&vhost)
        .set("broker.order", "user")
        .set("batch.max_wait", "100ms")
        .set("broker.reconnect_max", "200ms")
        .start()
        .await;
    app.wait_for_log(SOON, "distributing to the shards was interrupted")
        .await;
    // Each look takes this tool longer than the pause between two attempts.
    for _ in 0..6 {
        let alarms = rabbitmq.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await;
        assert_ne!(alarms.trim(), "[]");
    }
    rabbitmq.eval(&watermark("0.6")).await;
    eventually(SOON, "they are rows", async || {
        (fleet.count_of("no-id").await as usize >= MESSAGES).then_some(())
    })
    .await;
    eventually(SOON, "all queues are empty", async || {
        let path = vhost.rsplit('/').next().unwrap();
        let queues = rabbitmq
            .ctl(&[
                "-q",
                "--no-table-headers",
                "list_queues",
                "-p",
                path,
                "messages",
            ])
            .await;
        queues.lines().all(|line| line.trim() == "0").then_some(())
    })
    .await;
    let stored = fleet.count_of("no-id").await as usize;
    assert!(stored <= 2 * MESSAGES, "{stored}");
}

/// A fixed number of messages is in hand, so their weight must have a bound.
#[tokio::test]
async fn an_event_heavier_than_a_message_is_taken_at_no_door() {
    let fleet = Fleet::start(1, &[("broker.max_message_bytes", json!("4 KiB"))]).await;
    let app = &fleet.apps[0];
    let mut heavy = event("u0", 0);
    heavy["eventData"]["text"] = json!("x".repeat(4_096));
    let refused = app
        .post("/v1/events", &json!([event("u0", 1), heavy]))
        .await;
    assert_eq!(refused.status(), 413);
    let told = refused.text().await.unwrap();
    assert!(
        told.contains("item 1") && told.contains("broker.max_message_bytes"),
        "{told}"
    );
    let channel = confirming(&fleet.broker).await;
    put(&channel, "eclusa.events", heavy.to_string().as_bytes()).await;
    publish(&channel, 1, 3).await;
    fleet.in_order(1, 3).await;
    eventually(SOON, "it is a dead letter", async || {
        (app.metric("eclusa_dead_letters").await == 1.0).then_some(())
    })
    .await;
    let dead = app.get_json("/v1/dead-letters").await;
    let letter = &dead["deadLetters"][0];
    assert_eq!(letter["cause"], "invalid", "{dead}");
    let error = letter["error"].as_str().unwrap();
    assert!(error.contains("broker.max_message_bytes"), "{dead}");
}

#[tokio::test]
async fn what_is_no_event_is_put_aside_and_holds_nobody_up() {
    let fleet = Fleet::start(1, &[]).await;
    let channel = confirming(&fleet.broker).await;
    for body in ["{", "[]", r#"{"eventType": 5}"#] {
        put(&channel, "eclusa.events", body.as_bytes()).await;
    }
    publish(&channel, 5, 5).await;
    fleet.in_order(5, 5).await;
    let app = &fleet.apps[0];
    eventually(SOON, "they are dead letters", async || {
        (app.metric("eclusa_dead_letters").await == 3.0).then_some(())
    })
    .await;
    assert_eq!(
        app.metric_with("eclusa_events_accepted_total", &[("source", "amqp")])
            .await,
        25.0
    );
}

//! How many messages a consumer takes at once, by their number and size.

use crate::amqp::{SOON, bench};
use crate::harness::{confirming, eventually};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::json;
use std::time::Instant;

/// Publishes messages one after the other on one connection, to the work queue itself.
async fn publish_all(url: &str, bodies: impl Iterator<Item = Vec<u8>>) {
    let channel = confirming(url).await;
    for body in bodies {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirm = channel
            .basic_publish(
                "".into(),
                "eclusa.events".into(),
                BasicPublishOptions::default(),
                &body,
                properties,
            )
            .await
            .unwrap();
        assert!(confirm.await.unwrap().is_ack());
    }
}

/// Messages without ids: one that is written and delivered again would be two rows.
#[tokio::test]
async fn large_messages_behind_small_ones_come_in_smaller_portions_and_once() {
    const SMALL: usize = 600;
    const LARGE: usize = 300;
    const LARGE_BYTES: usize = 400_000;
    let mut bench = bench(&[
        ("ingest.max_in_flight", json!("8 MiB")),
        ("broker.prefetch", json!(500)),
    ])
    .await;
    let message = |n: usize, filler: usize| {
        let data = json!({"filler": "x".repeat(filler)});
        let event = json!({"userId": n.to_string(), "eventType": "t", "eventData": data});
        event.to_string().into_bytes()
    };
    let small = (0..SMALL).map(|n| message(n, 10));
    let large = (SMALL..SMALL + LARGE).map(|n| message(n, LARGE_BYTES));
    publish_all(&bench.vhost, small).await;
    bench.wait_rows(SMALL as i64).await;
    // By now the consumer takes 500 at once. All the large ones together are 15 times the bound.
    bench.app.wait_for_log(SOON, "\"prefetch\":500").await;
    // The broker sends as many of them as it may before it learns that they are too large.
    bench.app.pause();
    publish_all(&bench.vhost, large).await;
    bench.app.resume();
    bench.wait_rows((SMALL + LARGE) as i64).await;
    bench.app.wait_for_log(SOON, "\"prefetch\":10,").await;
    bench.wait_settled().await;
    assert_eq!(bench.rows().await, (SMALL + LARGE) as i64);
    assert_eq!(
        bench.app.metric("eclusa_events_dead_lettered_total").await,
        0.0
    );
}

#[tokio::test]
async fn a_channel_that_closes_takes_its_unwritten_messages_with_it() {
    const MESSAGES: usize = 90;
    let mut bench = bench(&[("batch.max_wait", json!("10m"))]).await;
    let message = |n: usize| {
        let event = json!({"userId": n.to_string(), "eventType": "t"});
        event.to_string().into_bytes()
    };
    publish_all(&bench.vhost, (0..MESSAGES).map(message)).await;
    bench.wait_taken(MESSAGES as f64).await;
    // They wait in the open batch. The panic closes their channel, and RabbitMQ delivers them again.
    let point = "amqp_consumer.push";
    bench.app.set_failpoint(point, "0:1:panic").await.unwrap();
    publish_all(&bench.vhost, (MESSAGES..MESSAGES + 10).map(message)).await;
    let restarts = "eclusa_actor_restarts_total";
    eventually(SOON, "the consumer restarts", async || {
        (bench.app.metric(restarts).await == 1.0).then_some(())
    })
    .await;
    // Now all that waits is written.
    bench.app.rewrite_config("batch.max_wait", "100ms");
    bench.wait_settled().await;
    assert_eq!(bench.rows().await, MESSAGES as i64 + 10);
}

/// Messages that come one by one are not handed over one by one.
#[tokio::test]
async fn few_messages_at_a_time_are_handed_over_together() {
    const MESSAGES: u64 = 300;
    let bench = bench(&[]).await;
    let channel = confirming(&bench.vhost).await;
    let began = Instant::now();
    for n in 0..MESSAGES {
        let body = json!({"eventType": "t", "userId": "u", "eventData": {"n": n}}).to_string();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let queue = "eclusa.events".into();
        let publishing =
            channel.basic_publish("".into(), queue, options, body.as_bytes(), properties);
        assert!(publishing.await.unwrap().await.unwrap().is_ack());
    }
    bench.wait_rows(MESSAGES as i64).await;
    let elapsed = began.elapsed();
    let handed_over = [("actor", "batch_accumulator"), ("message", "push")];
    let metric = "eclusa_actor_handle_seconds_count";
    let handed_over = bench.app.metric_with(metric, &handed_over).await;
    // At least 20 ms pass after each, whatever the speed of this machine.
    let most = elapsed.as_millis() as f64 / 20.0 + 1.0;
    assert!(
        handed_over > 0.0 && handed_over <= most,
        "{handed_over} in {elapsed:?}"
    );
}

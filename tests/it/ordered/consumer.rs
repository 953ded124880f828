//! What the order of messages in hand depends on.

use crate::harness::{RabbitMq, confirming, eventually};
use eclusa::ordering::consumer_lock::{QueueStatus, look};
use eclusa::ordering::ordered_consumer::OrderedConsumer;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const QUEUE: &str = "in-order";
const MESSAGES: usize = 3_000;

async fn publish(channel: &Channel) {
    for n in 0..MESSAGES {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = n.to_string();
        let publishing = channel.basic_publish(
            "".into(),
            QUEUE.into(),
            options,
            body.as_bytes(),
            properties,
        );
        publishing.await.unwrap();
        if n % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes some messages, acknowledges a part of them, and is dropped as by a panic. Each must find
/// what the one before it had not acknowledged, in its order, while messages are still arriving.
async fn take_turns(connection: &Connection) {
    let mut expected = 0;
    for turn in 0.. {
        let last = expected + 1_000 > MESSAGES;
        let begun = OrderedConsumer::begin(connection, QUEUE, "turn", 250);
        let consumer = begun.await.unwrap();
        let mut chunks = consumer.chunks(1_000);
        let mut next = expected;
        let enough = if last {
            MESSAGES
        } else {
            expected + (turn % 4) * 60 + 1
        };
        while next < enough {
            let chunk = tokio::time::timeout(SOON, chunks.next())
                .await
                .unwrap()
                .unwrap();
            for message in chunk {
                let message = message.unwrap();
                let n: usize = std::str::from_utf8(&message.data).unwrap().parse().unwrap();
                assert_eq!(n, next, "turn {turn}, which began with {expected}");
                next += 1;
                if next % 50 == 0 {
                    let options = BasicAckOptions { multiple: true };
                    let acknowledging = consumer.channel().basic_ack(message.delivery_tag, options);
                    acknowledging.await.unwrap();
                    expected = next;
                }
            }
        }
        if last {
            return;
        }
        drop(chunks);
        drop(consumer);
        eventually(SOON, "nobody has messages in hand", async || {
            look(connection, QUEUE)
                .await
                .unwrap()
                .filter(|found| QueueStatus::is_vacant(*found))
        })
        .await;
    }
}

#[tokio::test]
async fn a_consumer_that_is_dropped_gives_its_messages_back_in_their_order() {
    let url = RabbitMq::shared().await.vhost().await;
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&url, properties).await.unwrap();
    let channel = confirming(&url).await;
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(QUEUE.into(), options, arguments)
        .await
        .unwrap();
    futures::join!(publish(&channel), take_turns(&connection));
}

//! The bare broker: a durable quorum queue, persistent messages, confirms, and what a client does
//! that publishes and consumes as fast as it goes and keeps nothing.

mod paced;

pub use paced::paced;

use crate::body::{Body, Ids};
use crate::queues;
use anyhow::{Context as _, bail};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::ProgressBar;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Frames on their way to the broker at once.
const FRAME_WINDOW: usize = 64;
/// Single messages on their way to the broker at once.
const MESSAGE_WINDOW: usize = 1_000;
/// Messages in hand of the consumer.
const PREFETCH: u16 = 1_000;
/// Delivery mode that survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// What an event in a frame has beside the producer's own members.
const FRAME_EXTRA: &str =
    r#","producer":"default","receivedAt":"2026-01-01T00:00:00.000000Z","source":"http""#;
/// How long the broker may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// A publishing channel and its message.
struct Publishing {
    channel: Channel,
    queue: String,
    body: Body,
    ids: Ids,
}

impl Publishing {
    async fn new(
        connection: &Connection,
        queue: &str,
        body: Body,
        source: u16,
    ) -> anyhow::Result<Self> {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            channel,
            queue: queue.to_owned(),
            body,
            ids: Ids::new(source),
        })
    }

    /// Sends the next message; the future is its confirm.
    async fn send(
        &mut self,
        made: &mut Vec<Uuid>,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
        self.body.renew(&mut self.ids, made);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        let queue = self.queue.as_str().into();
        let confirm = self
            .channel
            .basic_publish("".into(), queue, options, self.body.bytes(), properties)
            .await?;
        Ok(async move {
            match tokio::time::timeout(PATIENCE, confirm).await {
                Ok(Ok(Confirmation::Ack(None))) => Ok(()),
                Ok(Ok(_)) => bail!("the broker did not take a message"),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => bail!("no confirm within {PATIENCE:?}"),
            }
        })
    }
}

/// Consumes until `enough` messages were there, acknowledging several at once, and tells of each.
async fn consume(
    connection: &Connection,
    queue: &str,
    mut on_message: impl FnMut(u64),
    enough: impl Fn(u64) -> bool,
) -> anyhow::Result<()> {
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut consumer = channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut count = 0;
    let mut last = 0;
    while !enough(count) {
        // The publisher may have ended meanwhile.
        let next = tokio::time::timeout(Duration::from_millis(100), consumer.next());
        let Ok(delivery) = next.await else { continue };
        last = delivery
            .context("the broker ended the consumer")??
            .delivery_tag;
        count += 1;
        on_message(count);
        if count % u64::from(PREFETCH / 2) == 0 {
            acknowledge(&channel, last).await?;
            last = 0;
        }
    }
    // Acknowledging a message twice would be an error.
    if last > 0 {
        acknowledge(&channel, last).await?;
    }
    channel.close(200, "done".into()).await?;
    Ok(())
}

async fn acknowledge(channel: &Channel, tag: u64) -> lapin::Result<()> {
    let options = BasicAckOptions { multiple: true };
    channel.basic_ack(tag, options).await
}

/// Publishes frames of `events` events for this long, consumes them at the same time, and says how
/// many events a second went through, from the first one published to the last one consumed.
///
/// # Errors
/// The broker's.
pub async fn frames(
    url: &str,
    queue: &str,
    events: usize,
    event_bytes: usize,
    duration: Duration,
) -> anyhow::Result<f64> {
    let publishing = queues::connect(url).await?;
    let consuming = queues::connect(url).await?;
    queues::declare(&consuming, queue).await?;
    let body = Body::new(events, event_bytes, FRAME_EXTRA);
    let mut frames = Publishing::new(&publishing, queue, body, 0).await?;
    let total = Cell::new(None);
    let began = Instant::now();
    let publish = async {
        let (mut sent, mut made) = (0_u64, Vec::new());
        let mut confirms = FuturesUnordered::new();
        while began.elapsed() < duration {
            while confirms.len() < FRAME_WINDOW {
                made.clear();
                confirms.push(frames.send(&mut made).await?);
                sent += 1;
            }
            confirms.next().await.transpose()?;
        }
        while confirms.next().await.transpose()?.is_some() {}
        total.set(Some(sent));
        Ok(())
    };
    let enough = |count| total.get().is_some_and(|total| count >= total);
    futures::try_join!(publish, consume(&consuming, queue, |_| {}, enough))?;
    let seconds = began.elapsed().as_secs_f64();
    let sent = total.get().unwrap_or_default();
    queues::delete(&consuming, queue).await?;
    close(&[&publishing, &consuming]).await?;
    Ok((sent * events as u64) as f64 / seconds)
}

/// Puts single-event messages onto a queue that exists, as a foreign publisher would, and gives
/// their ids.
///
/// # Errors
/// The broker's.
pub async fn preload(
    url: &str,
    queue: &str,
    messages: u64,
    event_bytes: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Uuid>> {
    let connection = queues::connect(url).await?;
    let body = Body::new(0, event_bytes, "");
    let mut single = Publishing::new(&connection, queue, body, 1).await?;
    let mut made = Vec::new();
    let mut confirms = FuturesUnordered::new();
    for number in 0..messages {
        confirms.push(single.send(&mut made).await?);
        if confirms.len() >= MESSAGE_WINDOW {
            confirms.next().await.transpose()?;
        }
        if number % 1_000 == 0 {
            bar.set_position(number);
        }
    }
    while confirms.next().await.transpose()?.is_some() {}
    close(&[&connection]).await?;
    Ok(made)
}

/// Consumes single-event messages that are there already, and says how many a second.
///
/// # Errors
/// The broker's.
pub async fn waiting(
    url: &str,
    queue: &str,
    messages: u64,
    event_bytes: usize,
    bar: &ProgressBar,
) -> anyhow::Result<f64> {
    let connection = queues::connect(url).await?;
    queues::declare(&connection, queue).await?;
    preload(url, queue, messages, event_bytes, bar).await?;
    let began = Instant::now();
    consume(&connection, queue, |_| {}, |count| count >= messages).await?;
    let seconds = began.elapsed().as_secs_f64();
    queues::delete(&connection, queue).await?;
    close(&[&connection]).await?;
    Ok(messages as f64 / seconds)
}

async fn close(connections: &[&Connection]) -> anyhow::Result<()> {
    for connection in connections {
        connection.close(200, "done".into()).await?;
    }
    Ok(())
}

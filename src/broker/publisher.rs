//! Publishing with confirms: a message counts as sent when a queue has it.

use super::connection::{Link, LinkWatch, Waiting};
use super::dead_letter;
use super::shards::Shards;
use super::sorting::Bounds;
use super::topology::Topology;
use crate::event::{Event, frame};
use crate::store::dead_letters::DeadLetter;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Attempts so far, on a message that comes round again.
pub const ATTEMPTS_HEADER: &str = "eclusa-attempts";
/// Text of the last failure.
pub const ERROR_HEADER: &str = "eclusa-error";
/// Delivery mode that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

/// Why a message is not known to be in a queue.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no connection now.
    #[error("not connected to the broker")]
    Down,
    /// The broker is short of memory or disk and takes no messages for now.
    #[error("the broker takes no messages for now (memory or disk alarm)")]
    Blocked,
    /// The queue does not exist; the broker would have thrown the message away.
    #[error("the queue {0} does not exist")]
    Unroutable(String),
    /// The broker could not take it.
    #[error("the broker refused the message")]
    Nacked,
    /// No confirm in time; the message may or may not be in the queue.
    #[error("no confirm from the broker within {0:?}")]
    TimedOut(Duration),
    /// The connection or channel failed; the message may or may not be in the queue.
    #[error("publishing failed: {0}")]
    Broker(#[from] lapin::Error),
    /// The event cannot be written as JSON.
    #[error("cannot write the message: {0}")]
    Encoding(#[from] serde_json::Error),
}

/// The way onto the queues; clones share it.
#[derive(Clone)]
pub struct Publisher {
    link: LinkWatch,
    waiting: Waiting,
    topology: Arc<Topology>,
    timeout: Duration,
}

impl Publisher {
    /// Publishes over whatever link is in force; `waiting` says what a link waits for.
    pub fn new(link: LinkWatch, waiting: Waiting, topology: Topology, timeout: Duration) -> Self {
        Self {
            link,
            waiting,
            topology: Arc::new(topology),
            timeout,
        }
    }

    /// The shards that users are spread over, if their events keep an order.
    pub fn shards(&self) -> Option<Shards> {
        self.topology.shards()
    }

    /// How large a frame may be.
    pub fn bounds(&self) -> Bounds {
        self.topology.bounds()
    }

    /// What there is to wait for before anything can be published, beside the broker itself.
    pub fn waits_for(&self) -> Option<String> {
        self.waiting.borrow().clone()
    }

    /// Whether a message could be published now.
    pub fn is_available(&self) -> bool {
        self.link
            .borrow()
            .as_ref()
            .is_some_and(|link| !link.is_blocked())
    }

    /// Puts a frame on the queue of the shard that all its events belong to, with how often they have
    /// failed so far.
    ///
    /// # Errors
    /// As [`Publisher::publish_frame`].
    pub async fn publish_to_shard(
        &self,
        shard: usize,
        frame: &[u8],
        letter: Option<Uuid>,
        attempts: u32,
    ) -> Result<(), PublishError> {
        let shards = self.shards().ok_or(PublishError::Down)?;
        let queue = shards.queue(self.topology.queue(), shard);
        let properties = frame_properties(letter, attempts);
        self.publish(|link| link.sharding.get(shard), &queue, frame, properties)
            .await
    }

    /// Puts a frame on the work queue.
    ///
    /// # Errors
    /// [`PublishError`]; except for `Down`, `Unroutable` and `Nacked` the frame may be there all
    /// the same, and publishing it again is safe.
    pub async fn publish_frame(&self, frame: &[u8]) -> Result<(), PublishError> {
        let headers = frame_headers();
        self.publish(
            |link| Some(&link.publishing),
            self.topology.queue(),
            frame,
            json(headers),
        )
        .await
    }

    /// Puts the events of a dead letter on the work queue again. What of them fails comes back to
    /// the same letter.
    ///
    /// # Errors
    /// As [`Publisher::publish_frame`].
    pub async fn publish_replay(&self, frame: &[u8], letter: Uuid) -> Result<(), PublishError> {
        let mut headers = frame_headers();
        set_letter(&mut headers, Some(letter));
        self.publish(
            |link| Some(&link.publishing),
            self.topology.queue(),
            frame,
            json(headers),
        )
        .await
    }

    /// Puts one event on the retry queue of a delay, from where it comes back to the work queue.
    ///
    /// # Errors
    /// As [`Publisher::publish_frame`].
    pub async fn publish_retry(
        &self,
        event: &Event,
        delay: Duration,
        attempts: u32,
        letter: Option<Uuid>,
        error: &str,
    ) -> Result<(), PublishError> {
        let mut encoder = frame::Encoder::default();
        encoder.push(event)?;
        let mut headers = frame_headers();
        headers.insert(ATTEMPTS_HEADER.into(), AMQPValue::LongUInt(attempts));
        set_letter(&mut headers, letter);
        headers.insert(
            ERROR_HEADER.into(),
            AMQPValue::LongString(short(error).into()),
        );
        // What failed together does not come back together. The queue's own limit is the longest.
        let jittered = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
        let expiration = jittered.as_millis().max(1).to_string();
        let properties = json(headers).with_expiration(expiration.as_str().into());
        let queue = self.topology.retry_queue(delay);
        self.publish(
            |link| Some(&link.retrying),
            &queue,
            &encoder.finish(),
            properties,
        )
        .await
    }

    /// Puts a dead letter on the dead-letter queue.
    ///
    /// # Errors
    /// As [`Publisher::publish_frame`].
    pub async fn publish_dead_letter(&self, letter: &DeadLetter) -> Result<(), PublishError> {
        let properties = dead_letter::properties(letter).with_delivery_mode(PERSISTENT);
        let queue = self.topology.dead_letter_queue();
        self.publish(|link| Some(&link.burying), queue, &letter.body, properties)
            .await
    }

    async fn publish(
        &self,
        channel: impl Fn(&Link) -> Option<&Channel>,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), PublishError> {
        let link = self.link.borrow().clone().ok_or(PublishError::Down)?;
        let Some(channel) = channel(&link) else {
            return Err(PublishError::Down);
        };
        let confirmed = confirmation(channel, queue, body, properties);
        // A message that the broker does not take now may be taken when the alarm is over: the
        // event is then known under its id already.
        let unblocked = async {
            tokio::select! {
                biased;
                result = confirmed => Some(result),
                () = link.blocked() => None,
            }
        };
        let result = match tokio::time::timeout(self.timeout, unblocked).await {
            Ok(Some(result)) => Ok(result),
            Ok(None) => return Err(PublishError::Blocked),
            Err(elapsed) => Err(elapsed),
        };
        match result {
            Err(_) => {
                link.suspect();
                Err(PublishError::TimedOut(self.timeout))
            }
            Ok(Err(error)) => {
                link.suspect();
                Err(error.into())
            }
            // Another message was returned on this link, and might be this one.
            Ok(Ok(Confirmation::Ack(None))) if link.has_returned() => Err(PublishError::Down),
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            // With `mandatory` the confirm of an unroutable message carries the message.
            Ok(Ok(Confirmation::Ack(Some(_)))) => {
                // Connecting anew declares the queue again.
                link.note_returned();
                Err(PublishError::Unroutable(queue.to_owned()))
            }
            Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => Err(PublishError::Nacked),
        }
    }
}

/// Publishes through the default exchange straight to a queue, and mandatory: without it the broker
/// confirms a message that it has thrown away.
async fn confirmation(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish("".into(), queue.into(), options, body, properties)
        .await?
        .await
}

/// Whether a queue has taken a message, on a channel that nobody else publishes on.
pub(super) async fn publish_confirmed(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<bool> {
    let confirmation = confirmation(channel, queue, body, properties).await?;
    Ok(matches!(confirmation, Confirmation::Ack(None)))
}

/// What is on a frame: it names the dead letter that its event was, and says how often its events have
/// failed.
pub(super) fn frame_properties(letter: Option<Uuid>, attempts: u32) -> BasicProperties {
    let mut headers = frame_headers();
    set_letter(&mut headers, letter);
    if attempts > 0 {
        headers.insert(ATTEMPTS_HEADER.into(), AMQPValue::LongUInt(attempts));
    }
    json(headers)
}

fn frame_headers() -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(
        frame::VERSION_HEADER.into(),
        AMQPValue::LongLongInt(frame::VERSION),
    );
    headers
}

fn set_letter(headers: &mut FieldTable, letter: Option<Uuid>) {
    if let Some(letter) = letter {
        headers.insert(
            dead_letter::LETTER_HEADER.into(),
            AMQPValue::LongString(letter.to_string().into()),
        );
    }
}

fn json(headers: FieldTable) -> BasicProperties {
    BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
}

/// An error's text at a length that fits a header frame.
pub(super) fn short(text: &str) -> String {
    text.chars().take(1_000).collect()
}

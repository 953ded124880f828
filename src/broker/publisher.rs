//! Publishing with confirms: a message counts as sent when a queue has it.

use super::connection::{ConnectionWaiters, Destination, LinkWatch};
use super::outgoing_frame::{FrameBounds, OutgoingFrame};
use super::topology::Topology;
use super::{dead_letter, headers};
use crate::event::{Delivery, Event, Shards, frame};
use crate::store::dead_letters::DeadLetter;
use lapin::options::BasicPublishOptions;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Confirmation};
use rand::Rng;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

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
    waiting: ConnectionWaiters,
    topology: Arc<Topology>,
    timeout: Duration,
}

impl Publisher {
    /// Publishes over whatever link is in force; `waiting` says what a link waits for.
    pub fn new(
        link: LinkWatch,
        waiting: ConnectionWaiters,
        topology: Topology,
        timeout: Duration,
    ) -> Self {
        Self {
            link,
            waiting,
            topology: Arc::new(topology),
            timeout,
        }
    }

    /// The shards of the settings, if events keep an order.
    pub fn shards(&self) -> Option<Shards> {
        self.topology.shards()
    }

    /// How large a frame may be.
    pub fn bounds(&self) -> FrameBounds {
        self.topology.bounds()
    }

    /// What there is to wait for before anything can be published, beside the broker itself.
    pub fn waits_for(&self) -> Option<String> {
        self.waiting.borrow().clone()
    }

    /// Whether a message could be published now.
    pub fn is_available(&self) -> bool {
        let link = self.link.borrow();
        let link = link.as_ref();
        link.is_some_and(|link| !link.is_blocked() && !link.is_draining())
    }

    /// Distributes events over the queues they go to: the work queue, or with an order the queue of
    /// each user's shard. The events of a queue keep their order.
    pub fn route(&self, deliveries: Vec<Delivery>) -> Vec<(Destination, VecDeque<Delivery>)> {
        let Some(shards) = self.shards() else {
            return vec![(Destination::WorkQueue, deliveries.into())];
        };
        let mut routed: Vec<_> = shards
            .all()
            .map(|shard| (Destination::Shard(shard), VecDeque::new()))
            .collect();
        for delivery in deliveries {
            if let Some((_, of_shard)) = routed.get_mut(shards.of_event(&delivery.event)) {
                of_shard.push_back(delivery);
            }
        }
        routed.retain(|(_, of_shard)| !of_shard.is_empty());
        routed
    }

    /// Publishes a frame to the work queue or to the queue of a shard.
    ///
    /// # Errors
    /// [`PublishError`]; except for `Down`, `Unroutable` and `Nacked` the frame may be there all
    /// the same, and publishing it again is safe.
    pub async fn publish_frame(
        &self,
        destination: Destination,
        frame: &OutgoingFrame,
    ) -> Result<(), PublishError> {
        let properties = headers::json(headers::of_frame(frame.letter(), frame.attempts()));
        self.publish(destination, &frame.body, properties).await
    }

    /// Publishes one event to the retry queue of a delay, from where it returns to the work queue.
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
        let mut headers = headers::of_frame(letter, attempts);
        let error = AMQPValue::LongString(headers::short(error).into());
        headers.insert(headers::ERROR_HEADER.into(), error);
        // Events that failed together do not return together. The queue's own limit is the longest.
        let jittered = delay.mul_f64(rand::rng().random_range(0.5..=1.0));
        let expiration = jittered.as_millis().max(1).to_string();
        let properties = headers::json(headers).with_expiration(expiration.as_str().into());
        self.publish(Destination::Retry(delay), &encoder.finish(), properties)
            .await
    }

    /// Publishes a dead letter to the dead-letter queue.
    ///
    /// # Errors
    /// As [`Publisher::publish_frame`].
    pub async fn publish_dead_letter(&self, letter: &DeadLetter) -> Result<(), PublishError> {
        let properties = headers::durable(dead_letter::properties(letter));
        self.publish(Destination::DeadLetters, &letter.body, properties)
            .await
    }

    fn queue(&self, destination: Destination) -> Option<String> {
        let topology = &self.topology;
        Some(match destination {
            Destination::WorkQueue => topology.queue().to_owned(),
            Destination::Shard(shard) => self.shards()?.queue(topology.queue(), shard),
            Destination::Retry(delay) => topology.retry_queue(delay),
            Destination::DeadLetters => topology.dead_letter_queue().to_owned(),
        })
    }

    /// Publishes through the default exchange straight to a queue, and mandatory: without it the
    /// broker confirms a message that it has discarded.
    async fn publish(
        &self,
        destination: Destination,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), PublishError> {
        let link = self.link.borrow().clone().ok_or(PublishError::Down)?;
        let (Some(channel), Some(queue)) = (link.channel(destination), self.queue(destination))
        else {
            return Err(PublishError::Down);
        };
        let confirmed = async {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let (exchange, key) = ("".into(), queue.as_str().into());
            channel
                .basic_publish(exchange, key, options, body, properties)
                .await?
                .await
        };
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
                Err(PublishError::Unroutable(queue))
            }
            Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => Err(PublishError::Nacked),
        }
    }
}

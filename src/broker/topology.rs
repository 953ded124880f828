//! What Eclusa declares on the broker, every time it connects.
//!
//! ```text
//! foreign publishers ─► exchange (topic) ─#─► work queue ◄── Eclusa (default exchange, mandatory)
//!                                               │    ▲
//!                     dead-letter exchange ◄────┘    └── retry queues (one per delay, by TTL)
//!                              └─► dead-letter queue
//! ```
//!
//! With `broker.order = "user"` the work queue is the inbox of foreign publishers, and Eclusa
//! publishes to the shard queues ([`Shards`]); which layout of them is in force is up to
//! [`crate::broker::shard_assignment`].
//!
//! All queues are quorum queues. What exists with other arguments is adopted as it is, with a
//! warning: it may hold messages.

use super::outgoing_frame::FrameBounds;
use super::server_version::ServerVersion;
use crate::config::broker::{BrokerSettings, DEFAULT_QUEUE};
use crate::event::Shards;
use futures::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use std::time::Duration;

/// The names in use, and the delays that have a retry queue.
#[derive(Debug, Clone)]
pub struct Topology {
    settings: BrokerSettings,
    delays: Vec<Duration>,
}

impl Topology {
    /// For these settings and delays.
    pub fn new(settings: &BrokerSettings, delays: Vec<Duration>) -> Self {
        Self {
            settings: settings.clone(),
            delays,
        }
    }

    pub fn queue(&self) -> &str {
        &self.settings.queue
    }

    /// The shards of the settings; none without an order.
    pub fn shards(&self) -> Option<Shards> {
        let settings = &self.settings;
        settings.is_ordered().then_some(Shards {
            count: settings.shards,
            prefetch: settings.shard_prefetch,
        })
    }

    /// How large a frame may be.
    pub fn bounds(&self) -> FrameBounds {
        let bytes = self.settings.max_message_bytes.as_u64();
        FrameBounds {
            events: self.settings.max_frame_events,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    pub fn dead_letter_queue(&self) -> &str {
        &self.settings.dead_letter_queue
    }

    /// The retry queue of a delay: the prefix and the delay as `1s` or `250ms`. A work queue of
    /// another name has retry queues of its own, since they lead back to it.
    pub fn retry_queue(&self, delay: Duration) -> String {
        let delay = if delay.subsec_millis() == 0 {
            format!("{}s", delay.as_secs())
        } else {
            format!("{}ms", delay.as_millis())
        };
        if self.settings.queue == DEFAULT_QUEUE {
            format!("{}.{delay}", self.settings.retry_prefix)
        } else {
            format!(
                "{}.{}.{delay}",
                self.settings.retry_prefix, self.settings.queue
            )
        }
    }

    /// Declares everything.
    ///
    /// # Errors
    /// lapin's. A mismatch of a queue's arguments is none; of an exchange's kind it is.
    pub async fn declare(
        &self,
        connection: &Connection,
        version: ServerVersion,
    ) -> lapin::Result<()> {
        let settings = &self.settings;
        let channel = connection.create_channel().await?;
        exchange(&channel, &settings.exchange, ExchangeKind::Topic).await?;
        exchange(
            &channel,
            &settings.dead_letter_exchange,
            ExchangeKind::Fanout,
        )
        .await?;

        let no_limit = version.delivery_limit_can_be_switched_off();
        queue(connection, &settings.dead_letter_queue, quorum(no_limit)).await?;

        let mut work = quorum(no_limit);
        dead_letter_to(&mut work, &settings.dead_letter_exchange, None);
        queue(connection, &settings.queue, work).await?;

        if let Some(shards) = self.shards() {
            self.declare_shards(connection, shards, no_limit).await?;
        }

        for delay in &self.delays {
            let mut retry = quorum(no_limit);
            let ttl = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            retry.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl));
            dead_letter_to(&mut retry, "", Some(&settings.queue));
            queue(connection, &self.retry_queue(*delay), retry).await?;
        }

        let bind = |queue: &str, exchange: &str, key: &str| {
            let (queue, exchange, key) = (queue.into(), exchange.into(), key.into());
            channel.queue_bind(
                queue,
                exchange,
                key,
                QueueBindOptions::default(),
                FieldTable::default(),
            )
        };
        bind(&settings.queue, &settings.exchange, "#").await?;
        bind(
            &settings.dead_letter_queue,
            &settings.dead_letter_exchange,
            "",
        )
        .await?;
        channel.close(200, "declared".into()).await
    }

    /// Declares shard queues. Each has one active consumer at a time, in addition to the lock that its
    /// consumer takes.
    async fn declare_shards(
        &self,
        connection: &Connection,
        shards: Shards,
        no_delivery_limit: bool,
    ) -> lapin::Result<()> {
        let mut arguments = quorum(no_delivery_limit);
        dead_letter_to(&mut arguments, &self.settings.dead_letter_exchange, None);
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        let declaring = shards.all().map(|shard| {
            let (name, arguments) = (shards.queue(self.queue(), shard), arguments.clone());
            async move { queue(connection, &name, arguments).await }
        });
        try_join_all(declaring).await.map(|_| ())
    }
}

fn quorum(no_delivery_limit: bool) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    if no_delivery_limit {
        // From 4.0 on the broker would dead-letter on the 21st delivery by itself; attempts are
        // counted here.
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
    }
    arguments
}

/// Sets the dead-letter arguments of a queue. The strategy `at-least-once` loses no message between the
/// two queues; it requires the overflow behaviour `reject-publish`.
fn dead_letter_to(arguments: &mut FieldTable, exchange: &str, key: Option<&str>) {
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    if let Some(key) = key {
        arguments.insert("x-dead-letter-routing-key".into(), text(key));
    }
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(name.into(), kind, options, FieldTable::default())
        .await
}

/// Declares a queue on a channel of its own, since the broker closes the channel over a mismatch.
async fn queue(connection: &Connection, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match channel.queue_declare(name.into(), options, arguments).await {
        Ok(_) => channel.close(200, "declared".into()).await,
        Err(error) if is_mismatch(&error) => {
            let channel = connection.create_channel().await?;
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(name.into(), options, FieldTable::default())
                .await?;
            tracing::warn!(
                queue = name,
                %error,
                "the queue exists with other arguments and is used as it is; to have Eclusa's, \
                 empty it, delete it and restart"
            );
            channel.close(200, "adopted".into()).await
        }
        Err(error) => Err(error),
    }
}

pub(super) fn is_mismatch(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(
            error.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
        ),
        _ => false,
    }
}

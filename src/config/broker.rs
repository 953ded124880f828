//! RabbitMQ.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::time::Duration;

/// Name of the work queue unless set otherwise.
pub const DEFAULT_QUEUE: &str = "eclusa.events";

/// Id of a foreign message that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingId {
    /// A new one each time it is delivered.
    Random,
    /// A hash of its body.
    Content,
}

/// In which order the events of one user reach the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    None,
    /// In that in which they were taken.
    User,
}

/// What to do with events while the broker is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// As [`Fallback::Store`], or with [`Order::User`] as [`Fallback::Refuse`].
    Auto,
    /// Write them straight to the store.
    Store,
    Refuse,
}

/// `[broker]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSettings {
    /// `amqp://user:password@host/vhost`; a secret.
    pub url: String,
    pub queue: String,
    /// The topic exchange for foreign publishers.
    pub exchange: String,
    pub dead_letter_exchange: String,
    pub dead_letter_queue: String,
    /// Beginning of the retry queues' names.
    pub retry_prefix: String,
    pub channels: usize,
    /// Most messages in hand per channel, without an order by user.
    pub prefetch: u16,
    /// Messages in hand per shard, with [`Order::User`].
    pub shard_prefetch: u16,
    /// Largest message published, unless a single event is larger.
    pub max_message_bytes: ByteSize,
    /// Most events in one frame.
    pub max_frame_events: usize,
    /// Frames that may be on their way at once.
    pub frames_in_flight: usize,
    /// How long to wait for a publisher confirm.
    #[serde(with = "units::duration")]
    pub confirm_timeout: Duration,
    /// What to do with events while the broker is away, as set; [`BrokerSettings::refuses`] resolves
    /// `auto`.
    pub fallback: Fallback,
    /// In which order the events of one user reach the log.
    pub order: Order,
    /// Over how many queues users are spread, with [`Order::User`].
    pub shards: u16,
    /// The store away for so long, messages in hand go back to the broker.
    #[serde(with = "units::duration")]
    pub release_after: Duration,
    /// The broker's own consumer timeout.
    #[serde(with = "units::duration")]
    pub consumer_timeout: Duration,
    /// Id of a foreign message that has none.
    pub missing_id: MissingId,
    /// Heartbeat asked of the broker.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// First pause between attempts to reconnect.
    #[serde(with = "units::duration")]
    pub reconnect_min: Duration,
    /// Longest pause between attempts to reconnect.
    #[serde(with = "units::duration")]
    pub reconnect_max: Duration,
}

impl std::fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerSettings")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Longest heartbeat with [`Order::User`]. RabbitMQ gives a connection up between two and three of
/// them after its last sign of life, and take-over is to be done within 10 s.
const ORDERED_HEARTBEAT: Duration = Duration::from_secs(2);

impl BrokerSettings {
    /// Whether the events of one user keep their order.
    pub fn is_ordered(&self) -> bool {
        self.order == Order::User
    }

    /// Whether events are refused while the broker is away: one that took the way past the broker
    /// would overtake those that lie there.
    pub fn refuses(&self) -> bool {
        match self.fallback {
            Fallback::Auto => self.is_ordered(),
            Fallback::Store => false,
            Fallback::Refuse => true,
        }
    }

    /// The heartbeat to ask of the broker.
    pub fn heartbeat_in_force(&self) -> Duration {
        if self.is_ordered() {
            self.heartbeat.min(ORDERED_HEARTBEAT)
        } else {
            self.heartbeat
        }
    }

    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        let scheme = ["amqp://", "amqps://"];
        if !self.url.is_empty() && !scheme.iter().any(|s| self.url.starts_with(s)) {
            found.push(Invalid::new(
                "broker.url",
                "must begin with amqp:// or amqps://",
            ));
        }
        for (key, name) in [
            ("broker.queue", &self.queue),
            ("broker.exchange", &self.exchange),
            ("broker.dead_letter_exchange", &self.dead_letter_exchange),
            ("broker.dead_letter_queue", &self.dead_letter_queue),
            ("broker.retry_prefix", &self.retry_prefix),
        ] {
            // AMQP names are short strings; some room is left for the retry queues' delays.
            if name.is_empty() || name.len() > 200 || name.starts_with("amq.") {
                found.push(Invalid::new(
                    key,
                    format!("is {name:?}, but must have 1 to 200 bytes and not begin with amq."),
                ));
            }
        }
        if self.queue == self.dead_letter_queue {
            found.push(Invalid::new(
                "broker.queue, broker.dead_letter_queue",
                "are the same; dead letters would return forever",
            ));
        }
        if self.exchange == self.dead_letter_exchange {
            found.push(Invalid::new(
                "broker.exchange, broker.dead_letter_exchange",
                "are the same; dead letters would return forever",
            ));
        }
        in_range(found, "broker.shards", self.shards, 1..=256);
        if self.is_ordered() && self.fallback == Fallback::Store {
            found.push(Invalid::new(
                "broker.order, broker.fallback",
                "contradict each other: events written past the broker would overtake those of the \
                 same user that lie there. Set broker.fallback to \"auto\" or \"refuse\", or \
                 broker.order to \"none\"",
            ));
        }
        in_range(found, "broker.channels", self.channels, 1..=64);
        in_range(found, "broker.prefetch", self.prefetch, 1..=u16::MAX);
        in_range(
            found,
            "broker.shard_prefetch",
            self.shard_prefetch,
            1..=u16::MAX,
        );
        in_range(
            found,
            "broker.max_frame_events",
            self.max_frame_events,
            1..=100_000,
        );
        in_range(
            found,
            "broker.frames_in_flight",
            self.frames_in_flight,
            1..=1_000,
        );
        in_range(
            found,
            "broker.max_message_bytes",
            self.max_message_bytes,
            ByteSize::kib(1)..=ByteSize::mib(16),
        );
        in_range(
            found,
            "broker.heartbeat (seconds)",
            self.heartbeat.as_secs(),
            1..=3_600,
        );
        if self.reconnect_min.is_zero() || self.reconnect_min > self.reconnect_max {
            found.push(Invalid::new(
                "broker.reconnect_min, broker.reconnect_max",
                "must be longer than nothing, and the first not longer than the second",
            ));
        }
        if self.confirm_timeout.is_zero() {
            found.push(Invalid::new(
                "broker.confirm_timeout",
                "must be longer than nothing",
            ));
        }
    }
}

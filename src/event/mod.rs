//! An event from parsing to its row: identity, validation, encoding, acknowledgement.
//!
//! [`Event`] is what producers send and the store writes. It travels as a [`Delivery`]: the event
//! and its [`Ticket`], which reports the outcome to the source.

pub mod array;
pub mod batch;
pub mod budget;
pub mod delivery;
#[cfg(test)]
pub(crate) mod fixture;
pub mod frame;
pub mod id;
pub mod item;
pub mod json;
pub mod lane;
mod members;
pub mod outcome;
pub mod pix;
pub mod read_waiters;
#[cfg(feature = "service")]
pub mod schemas;
pub mod shards;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use uuid::Uuid;

pub use batch::{Batch, PendingAck, Rows, Trigger};
pub use delivery::{CallerMode, Delivery, Origin, Ticket};
pub use lane::{Fence, Lane};
pub use outcome::{Cause, Outcome};
pub use read_waiters::ReadWaiters;
pub use shards::Shards;

/// Where an event entered the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// `POST /v1/events`.
    Http,
    /// A message of another publisher on the broker.
    Amqp,
    /// `eclusa events import`.
    Import,
    /// Recorded inside a transaction of the producer's own, by `eclusa_record` or the library.
    Sql,
    /// Emitted by a schedule of the settings.
    Schedule,
    /// A captured change of another database's table, or a row of a snapshot of it.
    Capture,
}

impl Source {
    pub const ALL: [Source; 6] = [
        Source::Http,
        Source::Amqp,
        Source::Import,
        Source::Sql,
        Source::Schedule,
        Source::Capture,
    ];

    /// The word in the `source` column, in frames and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Http => "http",
            Source::Amqp => "amqp",
            Source::Import => "import",
            Source::Sql => "sql",
            Source::Schedule => "schedule",
            Source::Capture => "capture",
        }
    }

    /// The reverse of [`Source::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Source::ALL
            .into_iter()
            .find(|source| source.as_str() == word)
    }
}

/// A validated event, which both stores can write.
#[derive(Debug, Clone)]
pub struct Event {
    /// The identity under which the event is stored once: the caller's UUID, an id derived from
    /// producer and the caller's other id ([`id`]), or a new UUIDv7.
    pub event_id: Uuid,
    /// The caller's id as it came, when it was not a UUID.
    pub original_id: Option<String>,
    /// The producer; ids that are not UUIDs are unique within a producer.
    pub producer: Arc<str>,
    /// The user; absent for sources without users.
    pub user_id: Option<String>,
    /// The event type, such as `page.view`.
    pub event_type: String,
    /// The payload: a JSON object as raw text, never parsed into a tree on the way.
    pub event_data: Box<RawValue>,
    /// The version of the type's schema that the payload follows; see `docs/SCHEMAS.md`.
    pub schema_version: Option<i16>,
    /// The session it belongs to.
    pub session_id: Option<String>,
    /// Time of the event as given by the caller; `None` stands for [`Event::received_at`].
    pub timestamp: Option<DateTime<Utc>>,
    /// Time of receipt, in whole microseconds.
    pub received_at: DateTime<Utc>,
    /// How the event entered the flow.
    pub source: Source,
}

impl Event {
    /// Memory of an event and its ticket without the texts, in bytes.
    const AROUND: usize = 600;
    /// Overhead of an event in a batch or a message, in bytes.
    const AROUND_TEXT: usize = 200;
    /// The smallest footprint of an event in the memory budget, in bytes.
    pub const SMALLEST: usize = Self::AROUND + Self::AROUND_TEXT;

    /// The caller's timestamp, or else the time of receipt.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.timestamp.unwrap_or(self.received_at)
    }

    /// Bytes that this event counts for in the memory budget.
    pub fn footprint(&self) -> usize {
        Self::AROUND + self.weight()
    }

    /// Bytes that this event counts for in the bounds of batches and messages: its texts plus a fixed
    /// overhead.
    pub fn weight(&self) -> usize {
        Self::AROUND_TEXT
            + self.event_data.get().len()
            + self.event_type.len()
            + self.user_id.as_ref().map_or(0, String::len)
            + self.session_id.as_ref().map_or(0, String::len)
            + self.original_id.as_ref().map_or(0, String::len)
    }
}

/// An event as read from the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEvent {
    /// Position in the log: order of arrival, with gaps.
    #[serde(rename = "sequence")]
    pub id: i64,
    #[serde(rename = "id")]
    pub event_id: Uuid,
    /// The caller's id, when it was not a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_id: Option<String>,
    pub producer: String,
    pub user_id: Option<String>,
    pub event_type: String,
    pub event_data: Box<RawValue>,
    /// The version of the type's schema that the payload follows; see `docs/SCHEMAS.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i16>,
    pub session_id: Option<String>,
    /// Time of the event.
    pub timestamp: DateTime<Utc>,
    pub received_at: DateTime<Utc>,
    /// How the event entered the flow.
    pub source: String,
    /// Whether all reactions to the event have finished; true when there are none.
    pub processed: bool,
}

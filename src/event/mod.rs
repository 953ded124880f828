//! An event, from the moment it is parsed to the moment it is a row.
//!
//! [`Event`] is what producers send and the store writes. It travels as a [`Delivery`]: the event
//! and the [`Ticket`] that says to its source what became of it.

pub mod array;
pub mod awaited;
pub mod batch;
pub mod completions;
pub mod delivery;
#[cfg(test)]
pub(crate) mod fixture;
pub mod frame;
pub mod id;
pub mod item;
pub mod json;
pub mod outcome;
pub mod request;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use uuid::Uuid;

pub use awaited::Awaited;
pub use batch::{Batch, Claim, Rows, Trigger};
pub use completions::Completions;
pub use delivery::{Delivery, Origin, Patience, Ticket};
pub use outcome::{Cause, Outcome};

/// Where an event entered the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// `POST /v1/events`.
    Http,
    /// A message of a foreign publisher on the broker.
    Amqp,
    /// `eclusa events import`.
    Import,
}

impl Source {
    /// The word that stands in the `source` column, in frames and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Http => "http",
            Source::Amqp => "amqp",
            Source::Import => "import",
        }
    }

    /// The reverse of [`Source::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Source::Http, Source::Amqp, Source::Import]
            .into_iter()
            .find(|source| source.as_str() == word)
    }
}

/// One event, validated: whatever is in here, both stores can write.
#[derive(Debug, Clone)]
pub struct Event {
    /// The identity under which the event is stored once: the caller's UUID, a UUIDv5 of the
    /// producer and the caller's other id, or a UUIDv7 made at the edge.
    pub event_id: Uuid,
    /// The caller's id as it came, when it was not a UUID.
    pub original_id: Option<String>,
    /// Whose events these are; ids that are not UUIDs are unique within a producer.
    pub producer: Arc<str>,
    /// Who did it; absent for sources without users.
    pub user_id: Option<String>,
    /// What happened, such as `page.view`.
    pub event_type: String,
    /// The payload: a JSON object as raw text, never parsed into a tree on the way.
    pub event_data: Box<RawValue>,
    /// The session it belongs to.
    pub session_id: Option<String>,
    /// When it happened, as the caller said; `None` means at [`Event::received_at`].
    pub timestamp: Option<DateTime<Utc>>,
    /// When Eclusa took it, in whole microseconds.
    pub received_at: DateTime<Utc>,
    /// The door it came in by.
    pub source: Source,
}

impl Event {
    /// Bytes of an event and its ticket in memory, without the texts.
    const AROUND: usize = 600;
    /// Bytes of what surrounds the texts in a batch or a message.
    const AROUND_TEXT: usize = 200;
    /// The least that an event is reckoned at in the memory budget.
    pub const SMALLEST: usize = Self::AROUND + Self::AROUND_TEXT;

    /// When it happened: the caller's time, or else the time of receipt.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.timestamp.unwrap_or(self.received_at)
    }

    /// Bytes this event is reckoned at in the memory budget: beside its texts each part of it has
    /// its place in memory, and there is the ticket.
    pub fn footprint(&self) -> usize {
        Self::AROUND + self.weight()
    }

    /// Bytes this event is reckoned at in the bounds of batches and messages: its texts plus a fixed
    /// part for what surrounds them.
    pub fn weight(&self) -> usize {
        Self::AROUND_TEXT
            + self.event_data.get().len()
            + self.event_type.len()
            + self.user_id.as_ref().map_or(0, String::len)
            + self.session_id.as_ref().map_or(0, String::len)
            + self.original_id.as_ref().map_or(0, String::len)
    }
}

/// An event as the log gives it back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEvent {
    /// Place in the log: order of arrival, with gaps.
    #[serde(rename = "sequence")]
    pub id: i64,
    /// The event's identity.
    #[serde(rename = "id")]
    pub event_id: Uuid,
    /// The caller's id, when it was not a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_id: Option<String>,
    /// Whose event it is.
    pub producer: String,
    /// Who did it.
    pub user_id: Option<String>,
    /// What happened.
    pub event_type: String,
    /// The payload.
    pub event_data: Box<RawValue>,
    /// The session.
    pub session_id: Option<String>,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// When it was taken.
    pub received_at: DateTime<Utc>,
    /// The door it came in by.
    pub source: String,
    /// Whether every reaction to it is done (true when there is none).
    pub processed: bool,
}

//! Events that an application records inside a transaction of its own.
//!
//! What the transaction does and the event are committed together, or neither: the transactional outbox
//! without a table for it. On PostgreSQL any language can do the same with the function
//! `eclusa_record`.

#[cfg(feature = "sqlite")]
use crate::event::{Event, Source, id};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
#[cfg(feature = "sqlite")]
use std::sync::Arc;
use uuid::Uuid;

/// The producer of events that name none.
const PRODUCER: &str = "sql";

/// An event to be recorded.
#[derive(Debug, Clone)]
pub struct RecordedEvent {
    pub event_type: String,
    /// A JSON object.
    pub event_data: Box<RawValue>,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    /// A new one if absent. An id that the log has already stores nothing.
    pub event_id: Option<Uuid>,
    /// Time of the event; the time of recording if absent.
    pub occurred_at: Option<DateTime<Utc>>,
    /// `sql` unless set.
    pub producer: String,
}

/// Why something is no event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    #[error("the event type is empty")]
    EmptyType,
    #[error("the event data is not a JSON object")]
    NotAnObject,
    #[error("the event data cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl RecordedEvent {
    /// An event of this type with this data, which must become a JSON object.
    ///
    /// # Errors
    /// The type is empty, or the data is no object.
    pub fn new(event_type: &str, event_data: &impl Serialize) -> Result<Self, NotAnEvent> {
        if event_type.is_empty() {
            return Err(NotAnEvent::EmptyType);
        }
        let event_data = serde_json::value::to_raw_value(event_data)?;
        if !event_data.get().starts_with('{') {
            return Err(NotAnEvent::NotAnObject);
        }
        Ok(Self {
            event_type: event_type.to_owned(),
            event_data,
            user_id: None,
            session_id: None,
            event_id: None,
            occurred_at: None,
            producer: PRODUCER.to_owned(),
        })
    }

    /// The event as it goes into the log now.
    #[cfg(feature = "sqlite")]
    pub(super) fn to_event(&self) -> Event {
        Event {
            event_id: self.event_id.unwrap_or_else(id::fresh),
            original_id: None,
            producer: Arc::from(self.producer.as_str()),
            user_id: self.user_id.clone(),
            event_type: self.event_type.clone(),
            event_data: self.event_data.clone(),
            schema_version: None,
            session_id: self.session_id.clone(),
            timestamp: self.occurred_at,
            received_at: super::times::floor(Utc::now()),
            source: Source::Sql,
        }
    }
}

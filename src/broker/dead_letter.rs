//! What is put aside: bytes as they came, and why.

use super::publisher::short;
use crate::event::{Cause, Event, frame, item};
use lapin::types::{AMQPValue, FieldTable};

/// A message for the dead-letter queue.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The message, or the item of it, as it came; an event that had been read is a frame again.
    pub body: Vec<u8>,
    /// What the bytes are said to be.
    pub content_type: Option<String>,
    /// AMQP `message_id` of the message, or the event's id.
    pub message_id: Option<String>,
    /// Whether `body` is a frame of Eclusa's own.
    pub frame: bool,
    /// Why it is here.
    pub cause: Cause,
    /// The same, in words.
    pub error: String,
    /// The store's code.
    pub sqlstate: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// The dead letter of an event that had been read.
///
/// # Errors
/// serde_json's, which do not occur for an event's fields.
pub fn of_event(
    event: &Event,
    cause: Cause,
    error: &str,
    sqlstate: Option<&str>,
    attempts: u32,
) -> Result<DeadLetter, serde_json::Error> {
    let mut encoder = frame::Encoder::default();
    encoder.push(event)?;
    Ok(DeadLetter {
        body: encoder.finish(),
        content_type: Some("application/json".to_owned()),
        message_id: Some(event.event_id.to_string()),
        frame: true,
        cause,
        error: error.to_owned(),
        sqlstate: sqlstate.map(str::to_owned),
        attempts,
    })
}

impl DeadLetter {
    /// Headers that say what happened, for people and for a replay.
    pub(super) fn headers(&self, origin: &str) -> FieldTable {
        let mut headers = FieldTable::default();
        let mut text = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        text("eclusa-cause", self.cause.as_str());
        text(super::publisher::ERROR_HEADER, &short(&self.error));
        text("eclusa-origin", origin);
        text("eclusa-failed-at", &frame::rfc3339(item::now()));
        if let Some(sqlstate) = &self.sqlstate {
            text("eclusa-sqlstate", sqlstate);
        }
        headers.insert(
            super::publisher::ATTEMPTS_HEADER.into(),
            AMQPValue::LongUInt(self.attempts),
        );
        if self.frame {
            headers.insert(
                frame::VERSION_HEADER.into(),
                AMQPValue::LongLongInt(frame::VERSION),
            );
        }
        headers
    }
}

//! The message of a run: body and properties.

use crate::broker::headers;
use crate::reactions::handler::Run;
use lapin::BasicProperties;
use lapin::types::ShortString;

/// Delivery modes: kept in memory, and written to disk.
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

pub(super) struct Message {
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

impl Message {
    /// The event in the shape of `GET /v1/events/{id}`. The message id is the run's, the same for each
    /// attempt; an event type that is longer than AMQP's `type` can be is in the body alone.
    ///
    /// # Errors
    /// None that is known: all fields have a form in JSON.
    pub(super) fn new(run: &Run, persistent: bool) -> Result<Self, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot make the message: {error}");
        let event = &run.event;
        let body = serde_json::to_vec(&**event).map_err(|error| cannot(&error))?;
        let id = ShortString::try_new(run.id()).map_err(|error| cannot(&error))?;
        let mode = if persistent { PERSISTENT } else { TRANSIENT };
        let properties = headers::of_event(event)
            .with_content_type(headers::JSON.into())
            .with_delivery_mode(mode)
            .with_message_id(id);
        Ok(Self { body, properties })
    }
}

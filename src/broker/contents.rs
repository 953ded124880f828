//! The contents of a message: events, and items that are none.

use crate::config::Settings;
use crate::config::broker::MissingId;
use crate::event::item::ItemLimits;
use crate::event::{Cause, Event};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use uuid::Uuid;

/// Options of decoding foreign messages.
pub struct DecodeOptions {
    /// Bounds of an item.
    pub limits: ItemLimits,
    /// Most bytes of an item, if they are bounded.
    pub max_event_bytes: Option<usize>,
    /// Most items of an array.
    pub max_items: usize,
    /// Producer of their events.
    pub producer: Arc<str>,
    /// Id of a message that has none.
    pub missing_id: MissingId,
    /// Set when the message was a dead letter and is decoded again.
    pub again: Option<Redecode>,
}

impl DecodeOptions {
    /// The options of the settings, for messages that are decoded for the first time.
    pub fn of(settings: &Settings) -> Self {
        Self {
            limits: settings.item_limits(),
            max_event_bytes: settings.max_event_bytes(),
            max_items: settings.max_message_items(),
            producer: Arc::clone(&settings.ingest.producer),
            missing_id: settings.broker.missing_id,
            again: None,
        }
    }
}

/// What is known of a dead letter that is decoded again. It makes decoding repeatable: a replay that is
/// interrupted and repeated gives the same event ids.
#[derive(Debug, Clone, Copy)]
pub struct Redecode {
    /// Id of the letter, from which the ids of events without one derive.
    pub letter: Uuid,
    /// Its index, if it is one item of an array whose other items were taken.
    pub item: Option<usize>,
    /// When it failed first, which stands in for when it was received.
    pub at: DateTime<Utc>,
}

/// An item, or a whole message, that is no event.
#[derive(Debug)]
pub struct InvalidItem {
    pub body: Vec<u8>,
    /// Its index, if it is one item of an array.
    pub item: Option<usize>,
    pub cause: Cause,
    /// What is wrong with it.
    pub error: String,
    /// The type, of an event that breaks the schema of its type.
    pub event_type: Option<String>,
}

impl InvalidItem {
    /// Bytes that it takes in the memory budget.
    pub fn footprint(&self) -> usize {
        const FIXED: usize = 200;
        FIXED + self.body.len() + self.error.len()
    }
}

/// The contents of a message.
#[derive(Debug, Default)]
pub struct Contents {
    pub events: Vec<Event>,
    /// Items that are no event.
    pub bad: Vec<InvalidItem>,
    /// Failed attempts of its events so far.
    pub attempts: u32,
    /// The dead letter that its events were, if they come from a replay.
    pub letter: Option<Uuid>,
}

impl Contents {
    /// A message that cannot be parsed.
    pub(super) fn malformed(body: &[u8], error: String) -> Self {
        Self::invalid_whole(body, Cause::Malformed, error)
    }

    /// A message that as a whole is no event.
    pub(super) fn invalid_whole(body: &[u8], cause: Cause, error: String) -> Self {
        Self {
            bad: vec![InvalidItem {
                body: body.to_vec(),
                item: None,
                cause,
                error,
                event_type: None,
            }],
            ..Self::default()
        }
    }
}

//! Events and tickets for unit tests.

use super::{CallerMode, Delivery, Event, Origin, Outcome, Source, Ticket, id, item};
use serde_json::value::RawValue;
use std::sync::Arc;

/// An origin that ignores outcomes.
struct IgnoredOrigin(CallerMode);

impl Origin for IgnoredOrigin {
    fn settle(&self, _: u64, _: Outcome) {}

    fn caller_mode(&self) -> CallerMode {
        self.0
    }
}

/// A small event with a new id.
pub fn event() -> Event {
    Event {
        event_id: id::fresh(),
        original_id: None,
        producer: "p".into(),
        user_id: None,
        event_type: "t".to_owned(),
        event_data: RawValue::from_string("{}".to_owned()).unwrap(),
        schema_version: None,
        session_id: None,
        timestamp: None,
        received_at: item::now(),
        source: Source::Http,
    }
}

/// `count` deliveries of such events, whose outcomes are ignored.
pub fn deliveries(count: usize, caller_mode: CallerMode) -> Vec<Delivery> {
    let origin = Arc::new(IgnoredOrigin(caller_mode));
    (0..count as u64)
        .map(|slot| Delivery::new(event(), Ticket::new(origin.clone(), slot)))
        .collect()
}

//! Events and tickets for unit tests.

use super::{Delivery, Event, Origin, Outcome, Patience, Source, Ticket, id, item};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Somebody who does not listen.
struct Nobody(Patience);

impl Origin for Nobody {
    fn settle(&self, _: u64, _: Outcome) {}

    fn patience(&self) -> Patience {
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
        session_id: None,
        timestamp: None,
        received_at: item::now(),
        source: Source::Http,
    }
}

/// So many deliveries of such events, whose outcomes nobody hears.
pub fn deliveries(count: usize, patience: Patience) -> Vec<Delivery> {
    let origin = Arc::new(Nobody(patience));
    (0..count as u64)
        .map(|slot| Delivery::new(event(), Ticket::new(origin.clone(), slot)))
        .collect()
}

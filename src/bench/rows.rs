//! Events as the store takes them, without anything before it.

use super::body::{self, Ids, Payload};
use crate::event::{Event, Rows, Source, item};
use serde_json::value::RawValue;
use std::sync::Arc;

/// A batch of new events.
///
/// # Errors
/// serde_json's, which do not occur for these payloads.
pub fn batch(ids: &mut Ids, rows: usize, event_bytes: usize) -> anyhow::Result<Rows> {
    let producer: Arc<str> = "default".into();
    let mut payload = Payload::new(event_bytes);
    let mut events = Vec::with_capacity(rows);
    for _ in 0..rows {
        let (event_id, number) = ids.make();
        let (user, session) = body::user_and_session(number);
        events.push(Event {
            event_id,
            original_id: None,
            producer: Arc::clone(&producer),
            user_id: Some(user),
            event_type: "bench.event".to_owned(),
            event_data: RawValue::from_string(payload.of(number).to_owned())?,
            session_id: Some(session),
            timestamp: None,
            received_at: item::now(),
            source: Source::Http,
        });
    }
    Ok(Rows::all(Arc::new(events)))
}

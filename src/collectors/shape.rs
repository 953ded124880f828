//! What collectors get of an event: the whole of it, some of its fields under other names, or a Pix message.

use crate::event::StoredEvent;
use crate::event::pix::{PixMessage, PixRules};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A field of an event: `userId`, `eventData.order.total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

/// Longest path, in names.
const MAX_DEPTH: usize = 16;

impl FieldPath {
    /// Reads a path of names with dots between them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FIRST: [&str; 9] = [
            "id",
            "eventType",
            "userId",
            "sessionId",
            "timestamp",
            "receivedAt",
            "producer",
            "source",
            "eventData",
        ];
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        let first = names.first().map(String::as_str).unwrap_or_default();
        if !FIRST.contains(&first) {
            return Err(format!(
                "{text:?} does not begin with a field of an event ({})",
                FIRST.join(", ")
            ));
        }
        if first != "eventData" && names.len() > 1 {
            return Err(format!("{text:?}: {first} has no fields"));
        }
        if names.len() > MAX_DEPTH || names.iter().any(String::is_empty) {
            return Err(format!(
                "{text:?} must have 1 to {MAX_DEPTH} names with dots between them"
            ));
        }
        Ok(Self(names))
    }

    /// The field's value as its JSON text.
    fn find<'a>(&self, event: &'a str) -> Option<&'a RawValue> {
        let mut found: &RawValue = serde_json::from_str(event).ok()?;
        for name in &self.0 {
            let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(found.get()).ok()?;
            found = fields.remove(name)?;
        }
        Some(found)
    }
}

/// What collectors get of an event.
#[derive(Debug, Clone)]
pub enum Shape {
    /// As `GET /v1/events/{id}` shows it.
    Event,
    /// These fields under these names. What the event lacks is left out.
    Fields(Vec<(String, FieldPath)>),
    /// The Pix message that it is.
    Pix,
}

impl Shape {
    /// The message as JSON, and as a Pix message if it is one.
    ///
    /// # Errors
    /// Why the event has none.
    pub fn of(&self, event: &StoredEvent) -> Result<(String, Option<PixMessage>), String> {
        let json = || serde_json::to_string(event).map_err(|error| error.to_string());
        match self {
            Shape::Event => Ok((json()?, None)),
            Shape::Fields(fields) => {
                let event = json()?;
                let members = fields.iter().filter_map(|(name, path)| {
                    let value = path.find(&event)?;
                    let name = serde_json::to_string(name).unwrap_or_default();
                    Some(format!("{name}:{}", value.get()))
                });
                Ok((
                    format!("{{{}}}", members.collect::<Vec<_>>().join(",")),
                    None,
                ))
            }
            Shape::Pix => {
                // Check digits are the business of the edge, where a setting may have been another one.
                let rules = PixRules {
                    check_digits: false,
                };
                let message =
                    PixMessage::parse(event.event_data.get(), rules).map_err(|found| {
                        let reasons = found
                            .iter()
                            .map(|one| format!("{} {}", one.field, one.reason));
                        format!("no Pix message: {}", reasons.collect::<Vec<_>>().join("; "))
                    })?;
                Ok((message.to_json(), Some(message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(data: &str) -> StoredEvent {
        let text = json!({
            "sequence": 1, "id": "01990000-0000-7000-8000-000000000000", "producer": "p", "eventType": "t",
            "eventData": null, "timestamp": "2026-01-01T00:00:00Z", "receivedAt": "2026-01-01T00:00:00Z",
            "source": "http", "processed": false
        });
        serde_json::from_str(
            &text
                .to_string()
                .replace("\"eventData\":null", &format!("\"eventData\":{data}")),
        )
        .unwrap()
    }

    #[test]
    fn fields_are_mapped_as_they_stand() {
        let path = |text| FieldPath::parse(text).unwrap();
        let shape = Shape::Fields(vec![
            ("total".to_owned(), path("eventData.order.total")),
            ("missing".to_owned(), path("eventData.order.none")),
            ("kind".to_owned(), path("eventType")),
        ]);
        let (body, _) = shape.of(&event(r#"{"order":{"total":12.50}}"#)).unwrap();
        assert_eq!(body, r#"{"total":12.50,"kind":"t"}"#);
        assert_eq!(
            shape.of(&event(r#"{"order":7}"#)).unwrap().0,
            r#"{"kind":"t"}"#
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for text in ["", "eventdata.x", "userId.x", "eventData..x", "eventData."] {
            assert!(FieldPath::parse(text).is_err(), "{text}");
        }
    }
}

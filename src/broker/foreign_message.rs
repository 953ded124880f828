//! Messages of publishers that know nothing of Eclusa: one event as JSON, an array of events, or either
//! of them inside the envelope `{"pattern": ..., "data": ...}` of NestJS microservices.

use super::contents::{Contents, DecodeOptions, InvalidItem, Redecode};
use crate::config::broker::MissingId;
use crate::event::item::{FieldError, Fields, Rules};
use crate::event::{Cause, Event, Source, array, id, item};
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    pattern: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "eventType")]
    event_type: Option<IgnoredAny>,
}

/// Decodes a message that is no frame.
pub(super) fn read(body: &[u8], properties: &BasicProperties, rules: &DecodeOptions) -> Contents {
    if let Some(encoding) = properties.content_encoding().as_ref().map(|e| e.as_str())
        && !matches!(encoding, "" | "identity" | "utf-8" | "utf8" | "UTF-8")
    {
        return Contents::malformed(body, format!("content encoding {encoding:?} is not read"));
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return Contents::malformed(body, format!("not UTF-8: {error}")),
    };
    let (payload, pattern) = match envelope(text) {
        Some((data, pattern)) => (data, pattern),
        None => (text, None),
    };
    let message = Message {
        id: properties
            .message_id()
            .as_ref()
            .map(|id| id.as_str())
            .filter(|id| !id.is_empty()),
        pattern,
        rules,
        now: rules.again.map_or_else(item::now, |again| again.at),
    };
    let trimmed = payload.trim_start();
    if trimmed.starts_with('[') {
        match array::read::<&RawValue>(payload, rules.max_items) {
            Ok((_, count)) if count > rules.max_items => Contents::invalid_whole(
                body,
                Cause::Invalid,
                format!(
                    "an array of {count} events; at most {} are taken at once (half of \
                     ingest.max_in_flight)",
                    rules.max_items
                ),
            ),
            Ok((items, _)) if items.is_empty() => {
                Contents::malformed(body, "an array without events".to_owned())
            }
            Ok((items, _)) => message.array(payload, &items),
            Err(error) => Contents::malformed(body, format!("not valid JSON: {error}")),
        }
    } else if trimmed.starts_with('{') {
        match serde_json::from_str::<&RawValue>(payload) {
            Ok(_) => message.single(body, payload),
            Err(error) => Contents::malformed(body, format!("not valid JSON: {error}")),
        }
    } else {
        Contents::malformed(
            body,
            "neither a JSON object nor an array of them".to_owned(),
        )
    }
}

/// Why an event is not taken where messages are bounded.
pub(super) fn too_large(bytes: usize, most: usize) -> String {
    format!(
        "has {bytes} bytes, but with broker.order = \"user\" an event may have at most {most} \
         (broker.max_message_bytes)"
    )
}

/// The inside of a NestJS envelope, and its pattern if that is a text. An object with an
/// `eventType` of its own is an event, whatever else it has.
fn envelope(text: &str) -> Option<(&str, Option<String>)> {
    if !text.contains("\"pattern\"") {
        return None;
    }
    let envelope: Envelope = serde_json::from_str(text).ok()?;
    if envelope.event_type.is_some() {
        return None;
    }
    let pattern = envelope.pattern?;
    let data = envelope.data?;
    Some((data.get(), serde_json::from_str(pattern.get()).ok()))
}

/// A foreign message while its items are read.
struct Message<'a> {
    id: Option<&'a str>,
    pattern: Option<String>,
    rules: &'a DecodeOptions,
    now: DateTime<Utc>,
}

impl Message<'_> {
    fn single(&self, body: &[u8], payload: &str) -> Contents {
        let event = self.fields(payload).and_then(|mut fields| {
            let (event_id, original) = match (fields.id.take(), self.rules.again, self.id) {
                (Some(given), _, _) => self.resolve(given)?,
                // The message's id is not that of one item of it.
                (
                    None,
                    Some(Redecode {
                        item: Some(index),
                        letter,
                        ..
                    }),
                    _,
                ) => {
                    let base = self.base().unwrap_or(letter);
                    (id::of_message_item(base, index), None)
                }
                (None, _, Some(given)) => self.resolve(given.to_owned())?,
                (None, again, None) => match (self.rules.missing_id, again) {
                    (MissingId::Content, _) => (id::of_content(&self.rules.producer, body), None),
                    (MissingId::Random, Some(again)) => {
                        (id::of_message_item(again.letter, 0), None)
                    }
                    (MissingId::Random, None) => (id::fresh(), None),
                },
            };
            Ok(self.event(fields, event_id, original))
        });
        match event {
            Ok(event) => Contents {
                events: vec![event],
                ..Contents::default()
            },
            Err(flaw) => flaw.of_whole(body),
        }
    }

    fn array(&self, payload: &str, items: &[&RawValue]) -> Contents {
        let base = self.base().or(match self.rules.missing_id {
            MissingId::Content => Some(id::of_content(&self.rules.producer, payload.as_bytes())),
            MissingId::Random => self.rules.again.map(|again| again.letter),
        });
        let mut contents = Contents::default();
        for (index, text) in items.iter().enumerate() {
            let event = self.fields(text.get()).and_then(|mut fields| {
                let (event_id, original) = match (fields.id.take(), base) {
                    (Some(given), _) => self.resolve(given)?,
                    (None, Some(base)) => (id::of_message_item(base, index), None),
                    (None, None) => (id::fresh(), None),
                };
                Ok(self.event(fields, event_id, original))
            });
            match event {
                Ok(event) => contents.events.push(event),
                Err(flaw) => contents.bad.push(flaw.of_item(text.get(), index)),
            }
        }
        contents
    }

    /// What the ids of an array's items are made of, if the message has an id.
    fn base(&self) -> Option<Uuid> {
        Some(id::of_caller(&self.rules.producer, self.id?))
    }

    /// An item's fields; the envelope's pattern stands in for an `eventType` it lacks.
    fn fields(&self, text: &str) -> Result<Fields, ItemFlaw> {
        if let Some(most) = self.rules.max_event_bytes.filter(|most| text.len() > *most) {
            return Err(too_large(text.len(), most).into());
        }
        let parsed = item::parse(text, &self.rules.limits, Rules::AMQP);
        let flaws = match (parsed, &self.pattern) {
            (Ok(fields), _) => return Ok(fields),
            (Err(flaws), None) => flaws,
            (Err(flaws), Some(pattern)) => {
                let only_type_missing = flaws.len() == 1
                    && flaws
                        .iter()
                        .all(|f| f.field == "eventType" && f.reason == "is required");
                match with_event_type(text, pattern).filter(|_| only_type_missing) {
                    Some(text) => match item::parse(&text, &self.rules.limits, Rules::AMQP) {
                        Ok(fields) => return Ok(fields),
                        Err(flaws) => flaws,
                    },
                    None => flaws,
                }
            }
        };
        Err(ItemFlaw::of(&flaws))
    }

    fn resolve(&self, given: String) -> Result<(Uuid, Option<String>), String> {
        let accept_days = self.rules.limits.accept_days;
        item::resolve_id(given, &self.rules.producer, self.now, accept_days)
            .map_err(|reason| format!("id {reason}"))
    }

    fn event(&self, fields: Fields, event_id: Uuid, original_id: Option<String>) -> Event {
        let producer = Arc::clone(&self.rules.producer);
        fields.into_event(event_id, original_id, producer, Source::Amqp, self.now)
    }
}

/// Why an item is no event.
struct ItemFlaw {
    error: String,
    /// The type, if all that is wrong is that it breaks the schema of its type.
    event_type: Option<String>,
}

impl ItemFlaw {
    fn of(flaws: &[FieldError]) -> Self {
        let texts = flaws
            .iter()
            .map(|flaw| format!("{} {}", flaw.field, flaw.reason).trim().to_owned());
        let of_schema = flaws.iter().all(|flaw| flaw.schema.is_some());
        let first = flaws.iter().find_map(|flaw| flaw.schema.as_ref());
        Self {
            error: texts.collect::<Vec<_>>().join("; "),
            event_type: first
                .filter(|_| of_schema)
                .map(|violation| violation.event_type.clone()),
        }
    }

    fn of_whole(self, body: &[u8]) -> Contents {
        let bad = InvalidItem {
            item: None,
            ..self.invalid(body.to_vec())
        };
        Contents {
            bad: vec![bad],
            ..Contents::default()
        }
    }

    fn of_item(mut self, text: &str, index: usize) -> InvalidItem {
        self.error = format!("item {index}: {}", self.error);
        InvalidItem {
            item: Some(index),
            ..self.invalid(text.as_bytes().to_vec())
        }
    }

    fn invalid(self, body: Vec<u8>) -> InvalidItem {
        InvalidItem {
            body,
            item: None,
            cause: match self.event_type {
                Some(_) => Cause::Schema,
                None => Cause::Invalid,
            },
            error: self.error,
            event_type: self.event_type,
        }
    }
}

impl From<String> for ItemFlaw {
    fn from(error: String) -> Self {
        Self {
            error,
            event_type: None,
        }
    }
}

/// The object `text` with an `eventType` put in front.
fn with_event_type(text: &str, event_type: &str) -> Option<String> {
    let event_type = serde_json::to_string(event_type).ok()?;
    let inside = text.trim_start().strip_prefix('{')?;
    let comma = if inside.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    Some(format!("{{\"eventType\":{event_type}{comma}{inside}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::item::DataRules;
    use crate::event::item::ItemLimits;

    fn rules(missing_id: MissingId) -> DecodeOptions {
        DecodeOptions {
            limits: ItemLimits {
                max_depth: 16,
                max_field_bytes: 256,
                accept_days: 400,
                data: DataRules::NONE,
            },
            max_event_bytes: None,
            max_items: 1_000,
            producer: "shop".into(),
            missing_id,
            again: None,
        }
    }

    fn read_text(text: &str) -> Contents {
        read(
            text.as_bytes(),
            &BasicProperties::default(),
            &rules(MissingId::Random),
        )
    }

    #[test]
    fn an_array_of_more_than_fits_is_invalid_as_a_whole() {
        for item in ["0", r#"{"eventType":"t"}"#] {
            let array = |count: usize| format!("[{}]", vec![item; count].join(","));
            let most = read_text(&array(1_000));
            assert_eq!(most.events.len() + most.bad.len(), 1_000);
            let text = array(1_001);
            let more = read_text(&text);
            assert_eq!((more.events.len(), more.bad.len()), (0, 1));
            assert_eq!(more.bad[0].body, text.as_bytes());
            assert_eq!(more.bad[0].cause, Cause::Invalid);
            assert!(
                more.bad[0].error.contains("1001 events"),
                "{}",
                more.bad[0].error
            );
        }
    }

    #[test]
    fn one_event_an_array_and_both_in_an_envelope_are_read() {
        let event = r#"{"userId":"u","eventType":"t","eventData":{"a":1}}"#;
        for (text, events) in [
            (event.to_owned(), 1),
            (format!("[{event}, {event}]"), 2),
            (format!(r#"{{"pattern":"events","data":{event}}}"#), 1),
            (
                format!(r#"{{"pattern":{{"cmd":"x"}},"data":[{event}],"id":"rpc"}}"#),
                1,
            ),
            (r#"{"pattern":"t","data":{"userId":"u"}}"#.to_owned(), 1),
            (r#"{"pattern":"t","data":{}}"#.to_owned(), 1),
        ] {
            let contents = read_text(&text);
            assert!(contents.bad.is_empty(), "{text}: {:?}", contents.bad);
            assert_eq!(contents.events.len(), events, "{text}");
            assert_eq!(contents.events[0].event_type, "t", "{text}");
        }
        let with_pattern = r#"{"pattern":"p","data":1,"eventType":"t"}"#;
        assert_eq!(
            read_text(with_pattern).events.len(),
            1,
            "an event may have such fields"
        );
    }

    #[test]
    fn what_is_none_of_these_keeps_its_bytes() {
        for text in [
            "",
            "hello",
            "17",
            "[",
            "[]",
            "{\"eventType\":",
            r#"{"pattern":"p","data":7}"#,
        ] {
            let contents = read_text(text);
            assert!(contents.events.is_empty());
            assert_eq!(contents.bad.len(), 1, "{text}");
            assert_eq!(contents.bad[0].cause, Cause::Malformed, "{text}");
            assert_eq!(contents.bad[0].body, text.as_bytes());
        }
        let bytes = [0xff, 0x00, 0x80];
        let contents = read(
            &bytes,
            &BasicProperties::default(),
            &rules(MissingId::Random),
        );
        assert_eq!(contents.bad[0].body, bytes);
    }

    #[test]
    fn a_bad_item_leaves_the_rest() {
        let contents = read_text(r#"[{"eventType":"a"},{"eventType":7},{"eventType":"b"}]"#);
        assert_eq!(contents.events.len(), 2);
        assert_eq!(contents.bad.len(), 1);
        assert_eq!(contents.bad[0].cause, Cause::Invalid);
        assert_eq!(contents.bad[0].body, br#"{"eventType":7}"#);
        assert!(
            contents.bad[0]
                .error
                .contains("item 1: eventType must be a string")
        );
    }

    #[test]
    fn the_id_is_the_bodys_else_the_messages_else_by_setting() {
        let properties = BasicProperties::default().with_message_id("m-1".into());
        let read = |text: &str, properties: &BasicProperties, missing| {
            let contents = super::read(text.as_bytes(), properties, &rules(missing));
            contents
                .events
                .iter()
                .map(|e| e.event_id)
                .collect::<Vec<_>>()
        };
        let none = BasicProperties::default();
        let plain = r#"{"eventType":"t"}"#;
        let own = r#"{"eventType":"t","id":"own"}"#;
        assert_eq!(
            read(own, &properties, MissingId::Random),
            [id::of_producer("shop", "own")]
        );
        assert_eq!(
            read(plain, &properties, MissingId::Random),
            [id::of_producer("shop", "m-1")]
        );
        assert_ne!(
            read(plain, &none, MissingId::Random),
            read(plain, &none, MissingId::Random)
        );
        assert_eq!(
            read(plain, &none, MissingId::Content),
            read(plain, &none, MissingId::Content)
        );

        let array = r#"[{"eventType":"t"},{"eventType":"t"}]"#;
        let ids = read(array, &properties, MissingId::Random);
        assert_eq!(ids, read(array, &properties, MissingId::Random));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(
            read(array, &none, MissingId::Content),
            read(array, &none, MissingId::Content)
        );
    }
}

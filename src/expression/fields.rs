//! The fields of an event as values of CEL.

use super::field_set::{FieldSet, WHOLE};
use super::names::EVENT_DATA;
use crate::event::StoredEvent;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp,
    CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use chrono::{DateTime, Utc};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

/// Strings, numbers, objects and so on that an expression reads of an event. Each is a value on the
/// heap, so these, and not bytes, are what an evaluation spends its time on.
const MAX_VALUES: usize = 10_000;

type AnyValue<'e> = Box<dyn Val + 'e>;

/// Gives an expression the fields of an event, each when it is asked for.
pub(super) struct EventFields<'e> {
    event: &'e StoredEvent,
    /// What the expression refers to in `eventData`.
    wanted: &'e FieldSet,
    data: OnceLock<Result<AnyValue<'e>, String>>,
}

impl<'e> EventFields<'e> {
    pub(super) fn new(event: &'e StoredEvent, wanted: &'e FieldSet) -> Self {
        Self {
            event,
            wanted,
            data: OnceLock::new(),
        }
    }

    /// Why `eventData` was needed and could not be read.
    pub(super) fn unreadable(&self) -> Option<&str> {
        self.data.get()?.as_ref().err().map(String::as_str)
    }
}

impl VariableResolver for EventFields<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let event = self.event;
        Some(match variable {
            EVENT_DATA => {
                let data = self
                    .data
                    .get_or_init(|| read(event.event_data.get(), self.wanted));
                CowVal::Borrowed(data.as_ref().ok()?.as_ref())
            }
            "eventType" => text(&event.event_type),
            "userId" => text_or_null(event.user_id.as_deref()),
            "sessionId" => text_or_null(event.session_id.as_deref()),
            "producer" => text(&event.producer),
            "source" => text(&event.source),
            "id" => CowVal::owned(CelString::from(event.event_id.to_string())),
            "timestamp" => time(event.timestamp),
            "receivedAt" => time(event.received_at),
            _ => return None,
        })
    }
}

fn text(text: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(text))
}

fn text_or_null(value: Option<&str>) -> CowVal<'_, '_> {
    value.map_or(CowVal::Borrowed(&CelNull), text)
}

fn time<'b>(time: DateTime<Utc>) -> CowVal<'b, 'b> {
    CowVal::owned(CelTimestamp::from(time.fixed_offset()))
}

/// Reads what is wanted of a JSON text.
fn read<'e>(json: &'e str, wanted: &FieldSet) -> Result<AnyValue<'e>, String> {
    let values = Cell::new(0);
    let reader = Reader {
        wanted,
        values: &values,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    reader.deserialize(&mut deserializer).map_err(|error| {
        if values.get() > MAX_VALUES {
            format!("refers to more than {MAX_VALUES} values in {EVENT_DATA}; name fewer of them")
        } else {
            format!("refers to {EVENT_DATA} that cannot be read: {error}")
        }
    })
}

/// Reads a JSON value. Texts stay where they are unless they contain escapes.
#[derive(Clone, Copy)]
struct Reader<'w> {
    wanted: &'w FieldSet,
    /// How many values have been read.
    values: &'w Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = AnyValue<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > MAX_VALUES {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = AnyValue<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let reader = Reader {
            wanted: &WHOLE,
            ..self
        };
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(reader)? {
            list.push(element);
        }
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(name) = fields.next_key_seed(FieldName)? {
            let Some(wanted) = self.wanted.below(&name) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = fields.next_value_seed(Reader { wanted, ..self })?;
            map.insert(CelMapKey::String(CelString::from(name)), value);
        }
        Ok(Box::new(CelMap::from(map)))
    }
}

/// Reads the name of a field.
struct FieldName;

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldName {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the name of a field")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::condition;

    const MB: usize = 1 << 20;

    #[test]
    fn only_what_is_needed_is_read() {
        let deep = format!("{}{}", "[".repeat(MB / 2), "]".repeat(MB / 2));
        let data = format!(r#"{{"deep": {deep}, "huge": 1e999, "plan": "pro"}}"#);
        for text in [
            "eventType == 'order.paid'",
            "eventData.plan == 'pro'",
            "!has(eventData.nothing)",
            "eventType == 'order.paid' || eventData.deep == 1",
        ] {
            assert_eq!(condition(text, &data), Ok(true), "{text}");
        }
        for text in ["eventData.deep == 1", "eventData['plan'] == 'pro'"] {
            let error = condition(text, &data).unwrap_err();
            assert!(error.contains("recursion limit"), "{text}: {error}");
        }
    }

    #[test]
    fn the_values_that_are_read_are_bounded() {
        let list = |count: usize| vec!["1"; count].join(",");
        // The map and the list are two.
        let fits = format!(r#"{{"a": [{}], "b": [{}]}}"#, list(9_998), list(MB / 2));
        assert_eq!(condition("eventData.a.size() == 9998", &fits), Ok(true));
        let exceeds = format!(r#"{{"a": [{}]}}"#, list(9_999));
        let error = condition("eventData.a.size() == 9999", &exceeds).unwrap_err();
        assert!(error.contains("more than 10000 values"), "{error}");
    }

    /// Quadratic time would be hours, and quadratic memory more than there is.
    #[test]
    fn large_events_are_evaluated_in_linear_time() {
        let word = "x".repeat(100);
        let words = vec![format!("\"{word}\""); 9_900].join(",");
        let text = "y".repeat(MB);
        let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
        let data = format!(
            r#"{{"words": [{words}], "text": "{text}", "escaped": "\u00fc{text}", "nested": {nested}}}"#
        );
        for (text, answer) in [
            (
                "eventData.text.contains('yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyz')",
                false,
            ),
            ("eventData.text.contains(eventData.text + 'z')", false),
            ("eventData.escaped.contains(eventData.text)", true),
            (
                "size(eventData.text + eventData.text + eventData.escaped) > 1",
                true,
            ),
            ("eventData.words.exists(w, w == eventData.text)", false),
            ("eventData.words.exists(w, [w] == eventData.words)", false),
            (
                "eventData.words.exists(w, w == 'y' || w.no == 1 || w < 1)",
                false,
            ),
            (
                "size(eventData.words.map(w, w + w + w + w + w)) == 9900",
                true,
            ),
            (
                "eventData.words.map(w, [w, w, w]) == eventData.words",
                false,
            ),
            (
                "eventData.words + eventData.words + eventData.words == []",
                false,
            ),
            ("eventData.nested == eventData.nested", true),
            ("eventData.nested == [eventData.nested]", false),
        ] {
            let found = condition(text, &data);
            if text.contains("w.no") {
                assert!(found.unwrap_err().contains("applies"), "{text}");
            } else {
                assert_eq!(found, Ok(answer), "{text}");
            }
        }
        for text in [
            "int(eventData.text) == 1",
            "duration(eventData.text) == duration('1s')",
            "timestamp(eventData.text) == timestamp",
            "eventData.words - eventData.words == 1",
        ] {
            let error = condition(text, &data).unwrap_err();
            assert!(error.len() < 200, "{text}: {error}");
        }
    }
}

//! An item as it came: its fields are found, but not yet checked.

use super::rules::{FieldError, MAX_REPORTED};
use super::values::json_reason;
use crate::event::array;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// An item's fields as raw JSON, and the errors in its keys.
#[derive(Debug, Default)]
pub struct RawItem<'a> {
    pub(super) id: Option<&'a RawValue>,
    pub(super) user_id: Option<&'a RawValue>,
    pub(super) event_type: Option<&'a RawValue>,
    pub(super) event_data: Option<&'a RawValue>,
    pub(super) schema_version: Option<&'a RawValue>,
    pub(super) session_id: Option<&'a RawValue>,
    pub(super) timestamp: Option<&'a RawValue>,
    pub(super) flaws: Vec<FieldError>,
    pub(super) unknown: Vec<(String, &'a RawValue)>,
    /// Why it has no fields at all.
    pub(super) broken: Option<String>,
    bytes: usize,
}

impl<'a> RawItem<'a> {
    /// Finds the fields in a text. [`check`](crate::event::item::check) reports text that is not a
    /// JSON object.
    pub fn read(text: &'a str) -> Self {
        if !text.trim_start().starts_with('{') {
            return Self::no_object();
        }
        serde_json::from_str(text).unwrap_or_else(|error| Self {
            broken: Some(json_reason(&error)),
            ..Self::default()
        })
    }

    /// Reads an array of at most `most` items; the second figure is how many it has.
    ///
    /// # Errors
    /// serde_json's, when the text is not one JSON array.
    pub fn read_array(text: &'a str, most: usize) -> Result<(Vec<Self>, usize), serde_json::Error> {
        array::read(text, most).or_else(|_| {
            // One item may have a key or a number that cannot be read, where the array can: then
            // it is that item's flaw.
            let (texts, count) = array::read::<&RawValue>(text, most)?;
            let items = texts.into_iter().map(|text| Self::read(text.get()));
            Ok((items.collect(), count))
        })
    }

    /// Bytes of its text, without the white space between its fields.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn no_object() -> Self {
        Self {
            broken: Some("must be a JSON object".to_owned()),
            ..Self::default()
        }
    }

    fn add(&mut self, key: Cow<'_, str>, value: &'a RawValue) {
        // Quotes, colon and comma.
        self.bytes += key.len() + value.get().len() + 4;
        let slot = match &*key {
            "id" => &mut self.id,
            "userId" => &mut self.user_id,
            "eventType" => &mut self.event_type,
            "eventData" => &mut self.event_data,
            "schemaVersion" => &mut self.schema_version,
            "sessionId" => &mut self.session_id,
            "timestamp" => &mut self.timestamp,
            _ => {
                self.unknown.push((key.into_owned(), value));
                return;
            }
        };
        if slot.replace(value).is_some() && self.flaws.len() < MAX_REPORTED {
            self.flaws.push(FieldError::new(&key, "is given twice"));
        }
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = RawItem<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawItem<'de>, M::Error> {
        let mut item = RawItem::default();
        while let Some(Key(key)) = map.next_key::<Key>()? {
            item.add(key, map.next_value()?);
        }
        Ok(item)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<RawItem<'de>, S::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawItem::no_object())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }

    fn visit_unit<E: Error>(self) -> Result<RawItem<'de>, E> {
        Ok(RawItem::no_object())
    }
}

impl<'de> Deserialize<'de> for RawItem<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_stands_in_its_place() {
        let text = r#"[{"id":"a"},1,-1,1.5,"x",null,true,[{"id":"b"}],{"id":"c"}]"#;
        let (items, _) = RawItem::read_array(text, 100).unwrap();
        let found: Vec<Option<&str>> = items
            .iter()
            .map(|item| item.id.map(RawValue::get))
            .collect();
        let mut wanted = vec![None; 9];
        wanted[0] = Some("\"a\"");
        wanted[8] = Some("\"c\"");
        assert_eq!(found, wanted);
        let objects = items.iter().filter(|item| item.broken.is_none());
        assert_eq!(objects.count(), 2);
    }

    #[test]
    fn an_item_that_cannot_be_read_is_that_items_flaw() {
        for bad in [r#"{"\ud800":1}"#, r#""\ud800""#, "1e999"] {
            let text = format!(r#"[{{"id":"a"}},{bad},{{"id":"c"}}]"#);
            let (items, count) = RawItem::read_array(&text, 3).unwrap();
            let broken: Vec<bool> = items.iter().map(|item| item.broken.is_some()).collect();
            assert_eq!((broken, count), (vec![false, true, false], 3), "{bad}");
        }
        for bad in [r#"[{"id":"a"},{"b":}]"#, "[{}", "{}"] {
            assert!(RawItem::read_array(bad, 3).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_given_again_and_again_is_told_a_few_times() {
        let text = format!("{{{}\"id\":1}}", "\"id\":1,".repeat(10_000));
        assert_eq!(RawItem::read(&text).flaws.len(), MAX_REPORTED);
    }

    #[test]
    fn white_space_between_fields_does_not_count() {
        let bytes = |text| RawItem::read(text).bytes();
        assert_eq!(
            bytes("{ \"userId\" : \"u\",\n \"eventData\": {\"a\": 1} }"),
            bytes(r#"{"userId":"u","eventData":{"a": 1}}"#)
        );
    }
}

//! An item as it came: its fields found, and nothing yet asked of them.

use super::{FieldError, json_reason};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// An item's fields as raw JSON, and what is wrong with its keys.
#[derive(Debug, Default)]
pub struct RawItem<'a> {
    pub(super) id: Option<&'a RawValue>,
    pub(super) user_id: Option<&'a RawValue>,
    pub(super) event_type: Option<&'a RawValue>,
    pub(super) event_data: Option<&'a RawValue>,
    pub(super) session_id: Option<&'a RawValue>,
    pub(super) timestamp: Option<&'a RawValue>,
    pub(super) flaws: Vec<FieldError>,
    pub(super) unknown: Vec<(String, &'a RawValue)>,
    /// Why it has no fields at all.
    pub(super) broken: Option<String>,
    bytes: usize,
}

impl<'a> RawItem<'a> {
    /// Finds the fields in a text. What is not JSON, or no object, is told by [`super::check`].
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
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let items = AtMost(most).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(items)
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
            "sessionId" => &mut self.session_id,
            "timestamp" => &mut self.timestamp,
            _ => {
                self.unknown.push((key.into_owned(), value));
                return;
            }
        };
        if slot.replace(value).is_some() {
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

/// An array whose items beyond so many are only counted: each takes more memory than text.
struct AtMost(usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = (Vec<RawItem<'de>>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = (Vec<RawItem<'de>>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        while items.len() < self.0 {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => {
                    let count = items.len();
                    return Ok((items, count));
                }
            }
        }
        let mut count = items.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((items, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_up_to_a_bound_and_counted_beyond_it() {
        let read = |text, most| RawItem::read_array(text, most).map(|(items, n)| (items.len(), n));
        assert_eq!(read("[]", 2).unwrap(), (0, 0));
        assert_eq!(read(" [{}, {}] ", 2).unwrap(), (2, 2));
        assert_eq!(read("[{},1,[2],\"x\",null]", 2).unwrap(), (2, 5));
        for text in ["[{}", "[{}]]", "[{},]", "[{\"id\":}]", "{}"] {
            assert!(read(text, 1).is_err(), "{text}");
        }
    }

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
    fn white_space_between_fields_does_not_count() {
        let bytes = |text| RawItem::read(text).bytes();
        assert_eq!(
            bytes("{ \"userId\" : \"u\",\n \"eventData\": {\"a\": 1} }"),
            bytes(r#"{"userId":"u","eventData":{"a": 1}}"#)
        );
    }
}

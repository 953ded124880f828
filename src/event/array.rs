//! Bounded reading of JSON arrays: items beyond a limit are counted, not kept.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Reads the first `most` items of an array, and the number of all its items.
///
/// # Errors
/// A serde_json error when the text is not one JSON array or a kept item is not a `T`.
pub fn read<'a, T: Deserialize<'a>>(
    text: &'a str,
    most: usize,
) -> Result<(Vec<T>, usize), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let kind = PhantomData;
    let items = AtMost { most, kind }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(items)
}

struct AtMost<T> {
    most: usize,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = (Vec<T>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = (Vec<T>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        while items.len() < self.most {
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
    use serde_json::value::RawValue;

    #[test]
    fn an_array_is_read_up_to_a_bound_and_counted_beyond_it() {
        let read = |text, most| {
            crate::event::array::read::<&RawValue>(text, most)
                .map(|(items, count)| (items.len(), count))
        };
        assert_eq!(read("[]", 2).unwrap(), (0, 0));
        assert_eq!(read(" [{}, {}] ", 2).unwrap(), (2, 2));
        assert_eq!(read("[{},1,[2],\"x\",null]", 2).unwrap(), (2, 5));
        for text in ["[{}", "[{}]]", "[{},]", "[{\"id\":}]", "{}", "[1,}"] {
            assert!(read(text, 1).is_err(), "{text}");
        }
    }
}

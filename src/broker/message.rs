//! Reading what lies on the work queue: frames of Eclusa's own, and the messages of publishers that
//! know nothing of it.
//!
//! A foreign message is one event as JSON, an array of events, or either of them inside the
//! envelope `{"pattern": ..., "data": ...}` of NestJS microservices. Whatever it is, every byte of
//! it ends as a row or as a dead letter.

use crate::config::Settings;
use crate::config::broker::MissingId;
use crate::event::item::{self, Fields, ItemLimits, Rules};
use crate::event::{Cause, Event, Source, array, frame, id};
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use uuid::Uuid;

/// How foreign messages are read.
pub struct Rulebook {
    /// What an item may hold.
    pub limits: ItemLimits,
    /// Most bytes of one, if they are bounded.
    pub max_event_bytes: Option<usize>,
    /// Most items of an array.
    pub max_items: usize,
    /// Whose events they are.
    pub producer: Arc<str>,
    /// Id of a message that has none.
    pub missing_id: MissingId,
    /// Set when the message was a dead letter and is read again.
    pub again: Option<Again>,
}

impl Rulebook {
    /// That of the settings, for what is read for the first time.
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

/// What is known of a message that is read again: with it, reading it once more gives the very same
/// events, so that a replay that is broken off and repeated doubles nothing.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    /// The letter; what has no id gets one made of this.
    pub letter: Uuid,
    /// Its place, if it is one item of an array that was otherwise taken.
    pub item: Option<usize>,
    /// When it failed first, which stands for when it was taken.
    pub at: DateTime<Utc>,
}

/// An item, or a whole message, that is no event.
#[derive(Debug)]
pub struct Bad {
    /// Its bytes.
    pub body: Vec<u8>,
    /// Its place, if it is one item of an array.
    pub item: Option<usize>,
    /// Malformed or invalid.
    pub cause: Cause,
    /// What is wrong with it.
    pub error: String,
}

impl Bad {
    /// Bytes it is reckoned at in the memory budget.
    pub fn footprint(&self) -> usize {
        const FIXED: usize = 200;
        FIXED + self.body.len() + self.error.len()
    }
}

/// What a message holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its events.
    pub events: Vec<Event>,
    /// What in it is none.
    pub bad: Vec<Bad>,
    /// How often its events have failed so far.
    pub attempts: u32,
    /// The dead letter that its events were, if they come from a replay.
    pub letter: Option<Uuid>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    pattern: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "eventType")]
    event_type: Option<IgnoredAny>,
}

/// Reads a message. A crash over it is one more thing that can be wrong with it.
pub fn read(body: &[u8], properties: &BasicProperties, rules: &Rulebook) -> Contents {
    let reading = AssertUnwindSafe(|| read_trusting(body, properties, rules));
    std::panic::catch_unwind(reading).unwrap_or_else(|_panic| {
        let error = "the code that reads it crashed".to_owned();
        whole(body, Cause::Panic, error)
    })
}

fn read_trusting(body: &[u8], properties: &BasicProperties, rules: &Rulebook) -> Contents {
    let mut contents = match header(properties, frame::VERSION_HEADER) {
        Some(frame::VERSION) => match frame::decode(body) {
            Ok(events) if events.is_empty() => malformed(body, "a frame without events".to_owned()),
            Ok(events) => framed(events),
            Err(error) => malformed(body, error.to_string()),
        },
        Some(version) => malformed(
            body,
            format!(
                "a frame of version {version}, but this release reads version {}; finish the \
                 upgrade of all replicas and replay it",
                frame::VERSION
            ),
        ),
        None => foreign(body, properties, rules),
    };
    contents.attempts = header(properties, super::publisher::ATTEMPTS_HEADER)
        .and_then(|attempts| u32::try_from(attempts).ok())
        .unwrap_or(0);
    contents.letter = super::dead_letter::letter_of(properties);
    contents
}

/// The events of a frame, less those that no row can hold.
fn framed(events: Vec<Event>) -> Contents {
    let mut contents = Contents::default();
    for (index, event) in events.into_iter().enumerate() {
        let flaw = match frame::check(&event) {
            Ok(()) => {
                contents.events.push(event);
                continue;
            }
            Err(flaw) => flaw,
        };
        let mut encoder = frame::Encoder::default();
        let body = match encoder.push(&event) {
            Ok(()) => encoder.finish(),
            Err(_) => event.event_data.get().as_bytes().to_vec(),
        };
        contents.bad.push(Bad {
            body,
            item: Some(index),
            cause: Cause::Invalid,
            error: flaw,
        });
    }
    contents
}

/// A header that is a whole number.
pub(super) fn header(properties: &BasicProperties, name: &str) -> Option<i64> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongLongInt(value) => Some(*value),
        AMQPValue::LongInt(value) => Some(i64::from(*value)),
        AMQPValue::LongUInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortShortInt(value) => Some(i64::from(*value)),
        _ => None,
    }
}

fn malformed(body: &[u8], error: String) -> Contents {
    whole(body, Cause::Malformed, error)
}

fn invalid(body: &[u8], error: String) -> Contents {
    whole(body, Cause::Invalid, error)
}

/// A message that is put aside as a whole.
fn whole(body: &[u8], cause: Cause, error: String) -> Contents {
    Contents {
        bad: vec![Bad {
            body: body.to_vec(),
            item: None,
            cause,
            error,
        }],
        ..Contents::default()
    }
}

fn foreign(body: &[u8], properties: &BasicProperties, rules: &Rulebook) -> Contents {
    if let Some(encoding) = properties.content_encoding().as_ref().map(|e| e.as_str())
        && !matches!(encoding, "" | "identity" | "utf-8" | "utf8" | "UTF-8")
    {
        return malformed(body, format!("content encoding {encoding:?} is not read"));
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return malformed(body, format!("not UTF-8: {error}")),
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
            Ok((_, count)) if count > rules.max_items => invalid(
                body,
                format!(
                    "an array of {count} events; at most {} are taken at once (half of \
                     ingest.max_in_flight)",
                    rules.max_items
                ),
            ),
            Ok((items, _)) if items.is_empty() => {
                malformed(body, "an array without events".to_owned())
            }
            Ok((items, _)) => message.array(payload, &items),
            Err(error) => malformed(body, format!("not valid JSON: {error}")),
        }
    } else if trimmed.starts_with('{') {
        match serde_json::from_str::<&RawValue>(payload) {
            Ok(_) => message.single(body, payload),
            Err(error) => malformed(body, format!("not valid JSON: {error}")),
        }
    } else {
        malformed(
            body,
            "neither a JSON object nor an array of them".to_owned(),
        )
    }
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
    rules: &'a Rulebook,
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
                    Some(Again {
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
            Err(error) => invalid(body, error),
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
                Err(error) => contents.bad.push(Bad {
                    body: text.get().as_bytes().to_vec(),
                    item: Some(index),
                    cause: Cause::Invalid,
                    error: format!("item {index}: {error}"),
                }),
            }
        }
        contents
    }

    /// What the ids of an array's items are made of, if the message has an id.
    fn base(&self) -> Option<Uuid> {
        let given = self.id?;
        let uuid = Uuid::try_parse(given).ok();
        Some(uuid.unwrap_or_else(|| id::of_producer(&self.rules.producer, given)))
    }

    /// An item's fields; the envelope's pattern stands in for an `eventType` it lacks.
    fn fields(&self, text: &str) -> Result<Fields, String> {
        if let Some(most) = self.rules.max_event_bytes.filter(|most| text.len() > *most) {
            return Err(format!(
                "has {} bytes, but with broker.order = \"user\" an event may have at most {most} \
                 (broker.max_message_bytes)",
                text.len()
            ));
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
        let flaws: Vec<String> = flaws
            .into_iter()
            .map(|flaw| format!("{} {}", flaw.field, flaw.reason).trim().to_owned())
            .collect();
        Err(flaws.join("; "))
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
mod tests;

//! Frames: Eclusa's own messages on the broker, several events as one JSON array.
//!
//! The broker's cost is per message, so events that are published at the same time share one.
//! Besides the public fields, an event in a frame carries what was assigned on receipt (`receivedAt`,
//! `source`, `producer`, `originalId`), so that every replica writes the same row. The header
//! [`VERSION_HEADER`] distinguishes frames from the messages of other publishers.

use super::item;
use super::item::{DataRules, ItemLimits};
use super::{Event, Source, id, json};
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// Message header with the version of the frame format.
pub const VERSION_HEADER: &str = "eclusa-frame";
/// The version that this release writes; later versions are refused.
pub const VERSION: i64 = 1;

/// An event inside a frame. Readers ignore unknown fields, so a later release may add fields under
/// the same version.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FrameItem<'a> {
    id: Uuid,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    original_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    producer: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    event_data: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    schema_version: Option<i16>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    timestamp: Option<Time>,
    received_at: Time,
    #[serde(borrow)]
    source: Cow<'a, str>,
}

impl FrameItem<'_> {
    fn into_event(self) -> Result<Event, FrameError> {
        Ok(Event {
            event_id: self.id,
            original_id: self.original_id.map(Cow::into_owned),
            producer: self.producer.as_ref().into(),
            user_id: self.user_id.map(Cow::into_owned),
            event_type: self.event_type.into_owned(),
            event_data: self.event_data.into_owned(),
            schema_version: self.schema_version,
            session_id: self.session_id.map(Cow::into_owned),
            timestamp: self.timestamp.map(|time| time.0),
            received_at: self.received_at.0,
            source: Source::parse(&self.source)
                .ok_or_else(|| FrameError::Source(self.source.to_string()))?,
        })
    }
}

/// A time in the format of [`rfc3339`]; chrono's own serde takes twice as long.
struct Time(DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        Ok(Self(time.with_timezone(&Utc).trunc_subsecs(6)))
    }
}

/// Why a message of Eclusa's own cannot be decoded. It is dead-lettered as malformed with its original
/// bytes.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not JSON of this form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The bytes are not UTF-8.
    #[error("not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// A source that this release does not know.
    #[error("unknown source {0:?}")]
    Source(String),
}

/// Encodes events into a frame.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    events: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            bytes: vec![b'['],
            events: 0,
        }
    }
}

impl Encoder {
    /// Adds an event.
    ///
    /// # Errors
    /// A serde_json error, which does not occur for an event's fields.
    pub fn push(&mut self, event: &Event) -> Result<(), serde_json::Error> {
        if self.events > 0 {
            self.bytes.push(b',');
        }
        let item = FrameItem {
            id: event.event_id,
            original_id: event.original_id.as_deref().map(Cow::Borrowed),
            producer: Cow::Borrowed(&event.producer),
            user_id: event.user_id.as_deref().map(Cow::Borrowed),
            event_type: Cow::Borrowed(&event.event_type),
            event_data: Cow::Borrowed(&event.event_data),
            schema_version: event.schema_version,
            session_id: event.session_id.as_deref().map(Cow::Borrowed),
            timestamp: event.timestamp.map(Time),
            received_at: Time(event.received_at),
            source: Cow::Borrowed(event.source.as_str()),
        };
        serde_json::to_writer(&mut self.bytes, &item)?;
        self.events += 1;
        Ok(())
    }

    /// Number of events in the frame.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether the frame has no events.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Completes the frame and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b']');
        self.bytes
    }
}

/// Limits for events in frames: the widest that any settings allow, because the replica that wrote
/// the frame may have other settings.
pub const WIDEST: ItemLimits = ItemLimits {
    max_depth: 512,
    max_field_bytes: 1_280,
    accept_days: 36_500,
    // Checked where the event entered, and again where it becomes a message.
    data: DataRules::NONE,
};

/// Validates an event from a frame. Any publisher on the queue can set the frame header, so a
/// frame's producer and timestamps are trusted and its fields are validated.
///
/// # Errors
/// The field that is wrong and why.
pub fn check(event: &Event) -> Result<(), String> {
    let texts = [
        ("userId", event.user_id.as_deref()),
        ("eventType", Some(event.event_type.as_str())),
        ("sessionId", event.session_id.as_deref()),
        ("originalId", event.original_id.as_deref()),
        ("producer", Some(&*event.producer)),
    ];
    for (name, text) in texts {
        let text = text.unwrap_or("-");
        if text.is_empty() || text.len() > WIDEST.max_field_bytes || text.contains('\0') {
            return Err(format!("{name} is empty, too long, or contains U+0000"));
        }
    }
    if event.schema_version.is_some_and(|version| version < 1) {
        return Err("schemaVersion is below 1".to_owned());
    }
    if !event.event_data.get().starts_with('{') {
        return Err("eventData is not an object".to_owned());
    }
    json::check(event.event_data.get(), WIDEST.max_depth)
        .map_err(|flaw| format!("eventData {flaw}"))?;
    if !item::is_writable(event.received_at) || !item::is_writable(event.occurred_at()) {
        return Err("timestamp or receivedAt is outside the years 0 to 9999".to_owned());
    }
    id::check_day(&event.event_id, Utc::now(), WIDEST.accept_days)
        .map_err(|flaw| format!("id {flaw}"))
}

/// Decodes a frame without validating its events; see [`check`].
///
/// # Errors
/// [`FrameError`] when any event cannot be decoded.
pub fn decode(bytes: &[u8]) -> Result<Vec<Event>, FrameError> {
    // One check of the whole text costs a tenth of one per string.
    let text = std::str::from_utf8(bytes)?;
    let items: Vec<FrameItem> = serde_json::from_str(text)?;
    items.into_iter().map(FrameItem::into_event).collect()
}

/// Decodes an event in the form of the API, which has what an event of a frame has.
///
/// # Errors
/// As [`decode`].
pub fn decode_shown(bytes: &[u8]) -> Result<Event, FrameError> {
    let item: FrameItem = serde_json::from_str(std::str::from_utf8(bytes)?)?;
    item.into_event()
}

/// Formats a time for headers and start-up output.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{id, item};

    #[test]
    fn a_frame_round_trips() {
        let event = |n: usize| Event {
            event_id: id::fresh(),
            original_id: (n == 1).then(|| "order \"1\"".to_owned()),
            producer: "shop".into(),
            user_id: (n != 2).then(|| "ü-1".to_owned()),
            event_type: "order.placed".to_owned(),
            event_data: RawValue::from_string(format!(r#"{{"n":{n}.50,"s":"\u00e9\n"}}"#)).unwrap(),
            schema_version: (n == 1).then_some(3),
            session_id: None,
            timestamp: (n == 0).then(item::now),
            received_at: item::now(),
            source: Source::Http,
        };
        let events: Vec<Event> = (0..3).map(event).collect();
        let mut encoder = Encoder::default();
        for event in &events {
            encoder.push(event).unwrap();
        }
        assert_eq!(encoder.len(), 3);
        let back = decode(&encoder.finish()).unwrap();
        for (sent, got) in events.iter().zip(&back) {
            assert_eq!(format!("{sent:?}"), format!("{got:?}"));
        }
        assert_eq!(back.len(), 3);
    }

    #[test]
    fn the_fields_of_a_frame_are_validated() {
        let frame = |id: &str, user: &str, data: &str| {
            format!(
                r#"[{{"id":"{id}","producer":"p","userId":{user},"eventType":"t","eventData":{data},
                    "receivedAt":"2026-01-01T00:00:00Z","source":"http"}}]"#
            )
        };
        let id = "8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11";
        let verdict = |text: String| check(&decode(text.as_bytes()).unwrap()[0]);
        assert_eq!(verdict(frame(id, "\"u\"", "{}")), Ok(()));
        let long = format!("\"{}\"", "x".repeat(5_000));
        for bad in [
            frame(id, &long, "{}"),
            frame(id, r#""\u0000""#, "{}"),
            frame(id, "\"u\"", r#"{"a":"\u0000"}"#),
            frame(id, "\"u\"", "[]"),
            frame("fffffffe-0000-7000-8000-000000000001", "\"u\"", "{}"),
        ] {
            assert!(verdict(bad.clone()).is_err(), "{bad}");
        }
    }

    /// An event that cannot be encoded again would take the other events of its frame with it.
    #[test]
    fn valid_events_can_be_encoded_again() {
        let (mut passed, mut refused) = (0, 0);
        for time in [
            "9999-12-31T23:59:59.999999999-01:00",
            "0000-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59.999999999Z",
            "0000-01-01T00:00:00Z",
            "2016-12-31T23:59:60.5Z",
            "2026-01-01T00:00:00.000001+14:00",
        ] {
            for (timestamp, received_at) in [(time, "2026-01-01T00:00:00Z"), (time, time)] {
                let text = format!(
                    r#"[{{"id":"8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11","producer":"p","eventType":"t",
                        "eventData":{{}},"timestamp":"{timestamp}","receivedAt":"{received_at}",
                        "source":"http"}}]"#
                );
                let event = decode(text.as_bytes()).unwrap().remove(0);
                if check(&event).is_err() {
                    refused += 1;
                    continue;
                }
                passed += 1;
                let mut encoder = Encoder::default();
                encoder.push(&event).unwrap();
                let back = decode(&encoder.finish()).unwrap().remove(0);
                assert_eq!(check(&back), Ok(()), "{time}");
                assert_eq!(format!("{event:?}"), format!("{back:?}"));
            }
        }
        assert_eq!((passed, refused), (8, 4));
    }

    #[test]
    fn malformed_frames_are_refused() {
        for bytes in [&b"{}"[..], b"[{}]", b"[", b"\xff", b"[1]"] {
            assert!(decode(bytes).is_err());
        }
    }
}

//! Decoding the messages of the work queue: frames of Eclusa's own, what outlets send, and the messages
//! of other publishers. Every byte of a message ends as a row or as a dead letter.

use super::contents::{Contents, DecodeOptions, InvalidItem};
use super::{foreign_message, headers};
use crate::event::item::{CheckedData, FieldError};
use crate::event::{Cause, Event, frame, id, item};
use lapin::BasicProperties;
use std::panic::AssertUnwindSafe;

/// Decodes a message. A panic over it makes it invalid, like any other flaw.
pub fn read(body: &[u8], properties: &BasicProperties, options: &DecodeOptions) -> Contents {
    let reading = AssertUnwindSafe(|| read_trusting(body, properties, options));
    std::panic::catch_unwind(reading).unwrap_or_else(|_panic| {
        let error = "the code that reads it crashed".to_owned();
        Contents::invalid_whole(body, Cause::Panic, error)
    })
}

fn read_trusting(body: &[u8], properties: &BasicProperties, options: &DecodeOptions) -> Contents {
    let mut contents = match headers::integer(properties, frame::VERSION_HEADER) {
        Some(frame::VERSION) => match frame::decode(body) {
            Ok(events) if events.is_empty() => {
                Contents::malformed(body, "a frame without events".to_owned())
            }
            Ok(events) => framed(events, options),
            Err(error) => {
                let version = frame::VERSION;
                Contents::malformed(body, format!("not a frame of version {version}: {error}"))
            }
        },
        Some(version) => Contents::malformed(
            body,
            format!(
                "a frame of version {version}, but this release reads version {}; finish the \
                 upgrade of all replicas and replay it",
                frame::VERSION
            ),
        ),
        None if headers::is_of_outlet(properties) => shown(body, options),
        None => foreign_message::read(body, properties, options),
    };
    contents.attempts = properties.headers().as_ref().map_or(0, headers::attempts);
    contents.letter = headers::letter_of(properties);
    contents
}

/// The events of a frame, less those that no row can hold, and, when it was a dead letter, those that break
/// the schema of their type now. Otherwise schemas were looked at where the events entered.
fn framed(events: Vec<Event>, options: &DecodeOptions) -> Contents {
    let mut contents = Contents::default();
    for (index, event) in events.into_iter().enumerate() {
        let again = options.again.is_some();
        let flaw = match frame::check(&event).and_then(|()| match again {
            true => check_data(&event, options),
            false => Ok(()),
        }) {
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
        contents.bad.push(InvalidItem {
            body,
            item: Some(index),
            cause: Cause::Invalid,
            error: flaw,
            event_type: None,
        });
    }
    contents
}

/// An event that an outlet of this log or of another one has sent. It keeps its id, so it is a duplicate
/// in the log that it came from; as a foreign message it would get a new id each time it comes round, if its
/// id is a derived one.
fn shown(body: &[u8], options: &DecodeOptions) -> Contents {
    let event = match frame::decode_shown(body) {
        Ok(event) => event,
        Err(error) => {
            return Contents::malformed(body, format!("not an event as outlets send it: {error}"));
        }
    };
    let accept_days = options.limits.accept_days;
    let checked = match options.max_event_bytes.filter(|most| body.len() > *most) {
        Some(most) => Err(foreign_message::too_large(body.len(), most)),
        None => frame::check(&event).and_then(|()| {
            id::check_day(&event.event_id, item::now(), accept_days)
                .map_err(|reason| format!("id {reason}"))?;
            check_data(&event, options)
        }),
    };
    match checked {
        Ok(()) => Contents {
            events: vec![event],
            ..Contents::default()
        },
        Err(reason) => Contents::invalid_whole(body, Cause::Invalid, reason),
    }
}

/// Checks a payload as where it entered.
fn check_data(event: &Event, options: &DecodeOptions) -> Result<(), String> {
    let data = event.event_data.get();
    let checked = options
        .limits
        .data
        .check(&event.event_type, event.schema_version, data);
    let flaws = match checked {
        Ok(CheckedData {
            quarantined: Some(violation),
            ..
        }) => vec![FieldError::from(*violation)],
        Ok(_) => return Ok(()),
        Err(flaws) => flaws,
    };
    let reasons: Vec<String> = flaws
        .into_iter()
        .map(|flaw| format!("{} {}", flaw.field, flaw.reason))
        .collect();
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::event::{Source, fixture};
    use lapin::types::{AMQPValue, FieldTable};

    fn read_frame(version: i64, body: &[u8]) -> Contents {
        let settings = Sources::from_text("").load().unwrap();
        let mut headers = FieldTable::default();
        headers.insert(
            frame::VERSION_HEADER.into(),
            AMQPValue::LongLongInt(version),
        );
        let properties = BasicProperties::default().with_headers(headers);
        read(body, &properties, &DecodeOptions::of(&settings))
    }

    #[test]
    fn a_frame_of_a_later_release_is_dead_lettered_unread() {
        let contents = read_frame(frame::VERSION + 1, b"[]");
        assert!(contents.bad[0].error.contains("version 2"));
    }

    /// An event as the API shows it, with an id that no publisher can take.
    const SHOWN: &str = r#"{"sequence":7,"id":"0198c0de-0000-8000-8000-000000000001","originalId":"o-1",
        "producer":"shop","userId":null,"eventType":"order.paid","eventData":{"a":1},"sessionId":null,
        "timestamp":"2026-01-02T03:04:05.678901Z","receivedAt":"2026-01-02T03:04:06Z","source":"http",
        "processed":false}"#;

    fn read_of_outlet(body: &str, content_type: &str) -> Contents {
        let settings = Sources::from_text("").load().unwrap();
        let mut headers = FieldTable::default();
        let outlet = AMQPValue::LongString("all".into());
        headers.insert(headers::OUTLET_HEADER.into(), outlet);
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_content_type(content_type.into());
        read(body.as_bytes(), &properties, &DecodeOptions::of(&settings))
    }

    #[test]
    fn what_an_outlet_has_sent_keeps_its_identity_and_its_data() {
        let contents = read_of_outlet(SHOWN, "application/json");
        let event = &contents.events[0];
        let id = "0198c0de-0000-8000-8000-000000000001";
        assert_eq!(event.event_id.to_string(), id);
        assert_eq!(event.original_id.as_deref(), Some("o-1"));
        assert_eq!((&*event.producer, event.source), ("shop", Source::Http));
        assert_eq!(event.event_data.get(), r#"{"a":1}"#);
        let given = event.timestamp.unwrap();
        assert_eq!(given.timestamp_micros(), 1_767_323_045_678_901);
    }

    #[test]
    fn what_says_that_it_is_of_an_outlet_is_checked() {
        for (body, cause) in [
            (SHOWN.replace("\"order.paid\"", "\"\""), Cause::Invalid),
            (
                SHOWN
                    .replace("0198c0de-0000-8", "0198c0de-0000-7")
                    .replace("0198", "0098"),
                Cause::Invalid,
            ),
            (SHOWN.replace("producer", "by"), Cause::Malformed),
            ("[]".to_owned(), Cause::Malformed),
        ] {
            let contents = read_of_outlet(&body, "application/json");
            assert_eq!(contents.bad[0].cause, cause, "{}", contents.bad[0].error);
            assert_eq!(contents.bad[0].body, body.as_bytes());
        }
        // A CloudEvent is a foreign message, and no event.
        let contents = read_of_outlet("{\"id\":\"a\"}", "application/cloudevents+json");
        assert_eq!(contents.bad[0].cause, Cause::Invalid);
    }

    #[test]
    fn an_event_that_no_row_can_hold_leaves_the_rest_of_its_frame() {
        let mut encoder = frame::Encoder::default();
        for event_type in ["a", "", "b"] {
            let event = Event {
                event_type: event_type.to_owned(),
                ..fixture::event()
            };
            encoder.push(&event).unwrap();
        }
        let contents = read_frame(frame::VERSION, &encoder.finish());
        assert_eq!(contents.events.len(), 2);
        assert_eq!(contents.bad[0].item, Some(1));
        assert_eq!(contents.bad[0].cause, Cause::Invalid);
    }
}

//! Headers of Eclusa's own messages: frames, retries, dead letters, and what outlets send.

use crate::event::{StoredEvent, frame};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

/// Failed attempts of a message's events so far.
pub const ATTEMPTS_HEADER: &str = "eclusa-attempts";
/// Text of the last failure.
pub const ERROR_HEADER: &str = "eclusa-error";
/// Id of a dead letter: on the dead-letter queue, and on what a replay puts on the work queue.
pub const LETTER_HEADER: &str = "eclusa-letter";
/// The outlet that sent a message.
pub const OUTLET_HEADER: &str = "eclusa-outlet";
/// The place in the log of an event that an outlet sends, with its generation.
pub const POSITION_HEADER: &str = "eclusa-position";
/// Why a message is on the dead-letter queue.
pub(super) const CAUSE_HEADER: &str = "eclusa-cause";
/// Content type of an event in the form of the API.
pub(crate) const JSON: &str = "application/json";
/// Delivery mode that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Value of a header that is an integer.
pub(super) fn integer(properties: &BasicProperties, name: &str) -> Option<i64> {
    integer_in(properties.headers().as_ref()?, name)
}

/// The same in a table of headers.
pub(super) fn integer_in(headers: &FieldTable, name: &str) -> Option<i64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(value) => Some(*value),
        AMQPValue::LongInt(value) => Some(i64::from(*value)),
        AMQPValue::LongUInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortShortInt(value) => Some(i64::from(*value)),
        _ => None,
    }
}

/// Value of a header that is a text.
pub(super) fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// Failed attempts in a table of headers; 0 without the header.
pub(super) fn attempts(headers: &FieldTable) -> u32 {
    integer_in(headers, ATTEMPTS_HEADER)
        .and_then(|attempts| u32::try_from(attempts).ok())
        .unwrap_or(0)
}

/// Whether a message is a frame of Eclusa's own, of whatever version.
pub fn is_frame(properties: &BasicProperties) -> bool {
    integer(properties, frame::VERSION_HEADER).is_some()
}

/// Whether an outlet sent the message, of this log or of another one, in the form of the API.
pub(super) fn is_of_outlet(properties: &BasicProperties) -> bool {
    let headers = properties.headers().as_ref();
    let content_type = properties.content_type().as_ref();
    headers.is_some_and(|headers| headers.inner().contains_key(OUTLET_HEADER))
        && content_type.is_some_and(|kind| kind.as_str() == JSON)
}

/// Whether Eclusa put the message on the dead-letter queue, and not the broker.
pub fn is_of_eclusa(properties: &BasicProperties) -> bool {
    let headers = properties.headers().as_ref();
    headers.is_some_and(|headers| headers.inner().contains_key(CAUSE_HEADER))
}

/// The dead letter that a message was, or is. The header is ignored on foreign messages, which must
/// not replace another publisher's letter.
pub fn letter_of(properties: &BasicProperties) -> Option<Uuid> {
    if !is_frame(properties) && !is_of_eclusa(properties) {
        return None;
    }
    let headers = properties.headers().as_ref()?;
    Uuid::try_parse(&text(headers, LETTER_HEADER)?).ok()
}

/// Headers of a frame: its version, the dead letter that its event was, and the failed attempts of
/// its events.
pub(super) fn of_frame(letter: Option<Uuid>, attempts: u32) -> FieldTable {
    let mut headers = FieldTable::default();
    let version = AMQPValue::LongLongInt(frame::VERSION);
    headers.insert(frame::VERSION_HEADER.into(), version);
    if let Some(letter) = letter {
        let letter = AMQPValue::LongString(letter.to_string().into());
        headers.insert(LETTER_HEADER.into(), letter);
    }
    if attempts > 0 {
        headers.insert(ATTEMPTS_HEADER.into(), AMQPValue::LongUInt(attempts));
    }
    headers
}

/// Properties of a durable JSON message.
pub(super) fn json(headers: FieldTable) -> BasicProperties {
    durable(BasicProperties::default())
        .with_headers(headers)
        .with_content_type(JSON.into())
}

/// The properties `type` and `timestamp` of an event's message. A type that is longer than AMQP's can
/// be is left out.
pub(crate) fn of_event(event: &StoredEvent) -> BasicProperties {
    let mut properties = BasicProperties::default();
    if let Ok(kind) = ShortString::try_new(&*event.event_type) {
        properties = properties.with_type(kind);
    }
    // AMQP has whole seconds since 1970.
    if let Ok(seconds) = u64::try_from(event.timestamp.timestamp()) {
        properties = properties.with_timestamp(seconds);
    }
    properties
}

/// The same properties for a message that survives a restart of the broker.
pub(crate) fn durable(properties: BasicProperties) -> BasicProperties {
    properties.with_delivery_mode(PERSISTENT)
}

/// An error's text, shortened to fit a header frame.
pub(super) fn short(text: &str) -> String {
    text.chars().take(1_000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_message_does_not_replace_a_letter_that_it_names() {
        let victim = Uuid::now_v7();
        let mut headers = of_frame(Some(victim), 2);
        assert_eq!(attempts(&headers), 2);
        let replayed = BasicProperties::default().with_headers(headers.clone());
        assert_eq!(letter_of(&replayed), Some(victim));
        headers = FieldTable::default();
        let letter = AMQPValue::LongString(victim.to_string().into());
        headers.insert(LETTER_HEADER.into(), letter);
        let foreign = BasicProperties::default().with_headers(headers);
        assert_eq!(letter_of(&foreign), None);
    }
}

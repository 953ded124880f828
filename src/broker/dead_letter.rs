//! Dead letters on the wire: what the dead-letter queue holds of them, and how they are read from
//! there, whether Eclusa put them there or the broker did.

use super::message::{Bad, header};
use super::publisher::{ATTEMPTS_HEADER, ERROR_HEADER, short};
use crate::config::broker::MissingId;
use crate::event::{Cause, Event, frame, id, item};
use crate::store::dead_letters::{DeadLetter, Failure};
use chrono::{DateTime, SubsecRound, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The letter's id: on the dead-letter queue, and on what a replay puts on the work queue.
pub const LETTER_HEADER: &str = "eclusa-letter";
/// Why it is there.
const CAUSE: &str = "eclusa-cause";
/// The queue it was taken from.
const ORIGIN: &str = "eclusa-origin";
const FAILED_AT: &str = "eclusa-failed-at";
const SQLSTATE: &str = "eclusa-sqlstate";
const EVENT_ID: &str = "eclusa-event-id";
const EVENT_TYPE: &str = "eclusa-event-type";
/// The message's own headers as JSON. Not as headers: `CC` would have the broker route a copy, and
/// `x-death` would tell the broker's story of another message.
const HEADERS: &str = "eclusa-headers";
/// Headers beyond this are left out: the broker bounds a message's header frame.
const MAX_HEADERS: usize = 32 * 1024;
/// In a letter's headers: its place in the array it was an item of.
pub const ITEM: &str = "eclusa-item";

/// The dead letter of an event that had been read.
///
/// # Errors
/// serde_json's, which do not occur for an event's fields.
pub fn of_event(
    event: &Event,
    letter: Option<Uuid>,
    failure: Failure,
    origin: &str,
) -> Result<DeadLetter, serde_json::Error> {
    let mut encoder = frame::Encoder::default();
    encoder.push(event)?;
    let id = letter.unwrap_or_else(|| id::of_failed_event(event));
    Ok(DeadLetter {
        event_id: Some(event.event_id),
        event_type: Some(event.event_type.clone()),
        content_type: Some("application/json".to_owned()),
        message_id: Some(event.event_id.to_string()),
        frame: true,
        ..DeadLetter::new(id, failure, origin, encoder.finish())
    })
}

/// The dead letter of a message, or of an item of one, that is no event.
pub fn of_unreadable(
    properties: &BasicProperties,
    bad: Bad,
    origin: &str,
    missing_id: MissingId,
) -> DeadLetter {
    let property = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    let letter = id_of(properties, &bad.body, bad.item, missing_id);
    let mut headers = headers_of(properties);
    if let Some(item) = bad.item {
        headers.insert(ITEM.to_owned(), item.into());
    }
    let failure = Failure {
        at: item::now(),
        cause: bad.cause.as_str().to_owned(),
        error: bad.error,
        sqlstate: None,
        attempts: 1,
    };
    DeadLetter {
        content_type: property(properties.content_type()),
        message_id: property(properties.message_id()),
        frame: is_frame(properties),
        headers,
        ..DeadLetter::new(letter, failure, origin, bad.body)
    }
}

/// The dead letter of a message, or of an item of it: the same each time it is delivered, as far as
/// anything tells it from other messages.
pub fn id_of(
    properties: &BasicProperties,
    body: &[u8],
    item: Option<usize>,
    missing_id: MissingId,
) -> Uuid {
    if let Some(letter) = letter_of(properties) {
        return letter;
    }
    let message_id = properties.message_id().as_ref().map(|id| id.as_str());
    match message_id.filter(|id| !id.is_empty()) {
        Some(message_id) => id::of_failed_message(message_id, item, body),
        // A frame holds the ids of its events, so no other message has the same bytes.
        None if is_frame(properties) || missing_id == MissingId::Content => {
            id::of_failed_message("", item, body)
        }
        // Equal messages without an id are as many events: rather one letter twice than two lost
        // in one.
        None => id::fresh(),
    }
}

/// The dead letter that a message was, or is. On the messages of others the header means nothing:
/// they must not end in somebody else's letter.
pub fn letter_of(properties: &BasicProperties) -> Option<Uuid> {
    if !is_frame(properties) && !is_of_eclusa(properties) {
        return None;
    }
    let headers = properties.headers().as_ref()?;
    Uuid::try_parse(&text(headers, LETTER_HEADER)?).ok()
}

/// Whether Eclusa put the message onto the dead-letter queue, and not the broker.
pub fn is_of_eclusa(properties: &BasicProperties) -> bool {
    let headers = properties.headers().as_ref();
    headers.is_some_and(|headers| headers.inner().contains_key(CAUSE))
}

/// Whether a message is a frame of Eclusa's own, of whatever version.
pub fn is_frame(properties: &BasicProperties) -> bool {
    header(properties, frame::VERSION_HEADER).is_some()
}

/// A message's headers as JSON.
pub fn headers_of(properties: &BasicProperties) -> Map<String, Value> {
    properties.headers().as_ref().map(map).unwrap_or_default()
}

/// The properties under which a letter's body was a message, as far as reading it needs them.
pub fn properties_of(letter: &DeadLetter) -> BasicProperties {
    let mut headers = FieldTable::default();
    if letter.frame {
        headers.insert(
            frame::VERSION_HEADER.into(),
            AMQPValue::LongLongInt(version(letter)),
        );
    }
    let properties = BasicProperties::default().with_headers(headers);
    match &letter.message_id {
        Some(message_id) => properties.with_message_id(message_id.as_str().into()),
        None => properties,
    }
}

/// A letter as a message for the dead-letter queue.
pub(super) fn properties(letter: &DeadLetter) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let failure = &letter.failure;
    set(LETTER_HEADER, &letter.id.to_string());
    set(CAUSE, &failure.cause);
    set(ERROR_HEADER, &short(&failure.error));
    set(ORIGIN, &letter.origin);
    set(FAILED_AT, &frame::rfc3339(failure.at));
    if let Some(sqlstate) = &failure.sqlstate {
        set(SQLSTATE, sqlstate);
    }
    if let Some(event_id) = letter.event_id {
        set(EVENT_ID, &event_id.to_string());
    }
    if let Some(event_type) = &letter.event_type {
        set(EVENT_TYPE, event_type);
    }
    if !letter.headers.is_empty() {
        let mut own = Value::Object(letter.headers.clone()).to_string();
        if own.len() > MAX_HEADERS {
            // What a replay needs stays.
            let needed = letter
                .headers
                .iter()
                .filter(|(name, _)| [ITEM, frame::VERSION_HEADER].contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()));
            own = Value::Object(needed.collect()).to_string();
        }
        set(HEADERS, &own);
    }
    headers.insert(
        ATTEMPTS_HEADER.into(),
        AMQPValue::LongUInt(failure.attempts),
    );
    if letter.frame {
        headers.insert(
            frame::VERSION_HEADER.into(),
            AMQPValue::LongLongInt(version(letter)),
        );
    }
    let mut properties = BasicProperties::default().with_headers(headers);
    if let Some(content_type) = &letter.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if let Some(message_id) = &letter.message_id {
        properties = properties.with_message_id(message_id.as_str().into());
    }
    properties
}

/// A message of the dead-letter queue as a letter.
pub fn read(body: Vec<u8>, properties: &BasicProperties, missing_id: MissingId) -> DeadLetter {
    let headers = properties.headers().clone().unwrap_or_default();
    let id = id_of(properties, &body, None, missing_id);
    let property = |value: &Option<lapin::types::ShortString>| {
        value.as_ref().map(|value| value.as_str().to_owned())
    };
    let letter = match text(&headers, CAUSE) {
        Some(cause) => of_eclusa(id, cause, &headers, body),
        None => of_broker(id, &headers, body),
    };
    DeadLetter {
        content_type: property(properties.content_type()),
        message_id: property(properties.message_id()),
        frame: is_frame(properties),
        ..letter
    }
}

/// What the retry supervisor published.
fn of_eclusa(id: Uuid, cause: String, headers: &FieldTable, body: Vec<u8>) -> DeadLetter {
    let at = text(headers, FAILED_AT)
        .and_then(|at| DateTime::parse_from_rfc3339(&at).ok())
        .map_or_else(item::now, |at| at.with_timezone(&Utc));
    let failure = Failure {
        at,
        cause,
        error: text(headers, ERROR_HEADER).unwrap_or_default(),
        sqlstate: text(headers, SQLSTATE),
        attempts: count(headers, ATTEMPTS_HEADER),
    };
    let origin = text(headers, ORIGIN).unwrap_or_default();
    DeadLetter {
        event_id: text(headers, EVENT_ID).and_then(|id| Uuid::try_parse(&id).ok()),
        event_type: text(headers, EVENT_TYPE),
        headers: text(headers, HEADERS)
            .and_then(|own| serde_json::from_str(&own).ok())
            .unwrap_or_default(),
        ..DeadLetter::new(id, failure, &origin, body)
    }
}

/// What the broker dead-lettered itself, or somebody else put there.
fn of_broker(id: Uuid, headers: &FieldTable, body: Vec<u8>) -> DeadLetter {
    // The newest entry comes first.
    let death = match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => match deaths.as_slice().first() {
            Some(AMQPValue::FieldTable(death)) => Some(death),
            _ => None,
        },
        _ => None,
    };
    let reason = death.and_then(|death| text(death, "reason"));
    let origin = death.and_then(|death| text(death, "queue"));
    let at = death.and_then(|death| match death.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => {
            DateTime::from_timestamp(i64::try_from(*seconds).ok()?, 0)
        }
        _ => None,
    });
    let cause = reason
        .as_deref()
        .and_then(Cause::parse)
        .unwrap_or(Cause::Unknown);
    let error = match (&reason, &origin) {
        (Some(reason), Some(queue)) => {
            format!("the broker put it aside from the queue {queue}: {reason}")
        }
        _ => "it came onto the dead-letter queue without a word why".to_owned(),
    };
    let failure = Failure {
        at: at.unwrap_or_else(Utc::now).trunc_subsecs(6),
        cause: cause.as_str().to_owned(),
        error,
        sqlstate: None,
        attempts: count(headers, ATTEMPTS_HEADER),
    };
    DeadLetter {
        headers: map(headers),
        ..DeadLetter::new(id, failure, &origin.unwrap_or_default(), body)
    }
}

/// The version of the frame a letter holds: a letter may be a frame of a later release.
fn version(letter: &DeadLetter) -> i64 {
    letter
        .headers
        .get(frame::VERSION_HEADER)
        .and_then(Value::as_i64)
        .unwrap_or(frame::VERSION)
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn count(headers: &FieldTable, name: &str) -> u32 {
    let properties = BasicProperties::default().with_headers(headers.clone());
    header(&properties, name)
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0)
}

fn map(headers: &FieldTable) -> Map<String, Value> {
    headers
        .inner()
        .iter()
        .map(|(key, value)| (key.as_str().to_owned(), json(value)))
        .collect()
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Timestamp(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => format!("{value:?}").into(),
        AMQPValue::ShortString(value) => value.as_str().into(),
        AMQPValue::LongString(value) => value.to_string().into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => Value::Object(map(table)),
        AMQPValue::ByteArray(bytes) => hex::encode(bytes.as_slice()).into(),
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests;

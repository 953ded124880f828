//! Dead letters as messages of the dead-letter queue: those that Eclusa publishes and those that the
//! broker dead-letters itself.

use super::contents::InvalidItem;
use super::headers;
use super::headers::{
    ATTEMPTS_HEADER, CAUSE_HEADER, ERROR_HEADER, LETTER_HEADER, is_frame, letter_of, short, text,
};
use crate::config::broker::MissingId;
use crate::event::{Cause, Event, frame, id, item};
use crate::store::dead_letters::{DeadLetter, DeadLetterFailure};
use chrono::{DateTime, SubsecRound, Utc};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The queue it was taken from.
const ORIGIN: &str = "eclusa-origin";
const FAILED_AT: &str = "eclusa-failed-at";
const SQLSTATE: &str = "eclusa-sqlstate";
const EVENT_ID: &str = "eclusa-event-id";
const EVENT_TYPE: &str = "eclusa-event-type";
/// The message's own headers as JSON. As headers, `CC` would have the broker route a copy, and
/// `x-death` would describe another message.
const HEADERS: &str = "eclusa-headers";
/// Headers beyond this are left out: the broker bounds a message's header frame.
const MAX_HEADERS: usize = 32 * 1024;
/// In a dead letter's headers: its index in the array it was an item of.
pub const ITEM: &str = "eclusa-item";

/// The dead letter of an event that had been read.
///
/// # Errors
/// serde_json's, which do not occur for an event's fields.
pub fn of_event(
    event: &Event,
    letter: Option<Uuid>,
    failure: DeadLetterFailure,
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
    bad: InvalidItem,
    origin: &str,
    missing_id: MissingId,
) -> DeadLetter {
    let letter = id_of(properties, &bad.body, bad.item, missing_id);
    let mut headers = headers_of(properties);
    if let Some(item) = bad.item {
        headers.insert(ITEM.to_owned(), item.into());
    }
    let failure = DeadLetterFailure {
        at: item::now(),
        cause: bad.cause.as_str().to_owned(),
        error: bad.error,
        sqlstate: None,
        attempts: 1,
    };
    DeadLetter {
        event_type: bad.event_type,
        content_type: property(properties.content_type()),
        message_id: property(properties.message_id()),
        frame: is_frame(properties),
        headers,
        ..DeadLetter::new(letter, failure, origin, bad.body)
    }
}

/// The id of the dead letter of a message or of an item of it: the same for each delivery, as far as
/// the message can be told from others.
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
        // Equal messages without an id are as many events: better two dead letters of one than one
        // of two.
        None => id::fresh(),
    }
}

/// A message's headers as JSON.
pub fn headers_of(properties: &BasicProperties) -> Map<String, Value> {
    properties.headers().as_ref().map(map).unwrap_or_default()
}

/// The properties that reading a dead letter's body as a message needs.
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

/// A dead letter as a message for the dead-letter queue.
pub(super) fn properties(letter: &DeadLetter) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let failure = &letter.failure;
    set(LETTER_HEADER, &letter.id.to_string());
    set(CAUSE_HEADER, &failure.cause);
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

/// A message of the dead-letter queue as a dead letter.
pub fn read(body: Vec<u8>, properties: &BasicProperties, missing_id: MissingId) -> DeadLetter {
    let headers = properties.headers().clone().unwrap_or_default();
    let id = id_of(properties, &body, None, missing_id);
    let letter = match text(&headers, CAUSE_HEADER) {
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
    let failure = DeadLetterFailure {
        at,
        cause,
        error: text(headers, ERROR_HEADER).unwrap_or_default(),
        sqlstate: text(headers, SQLSTATE),
        attempts: headers::attempts(headers),
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

/// A message that the broker dead-lettered itself, or that another publisher put there.
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
            format!("the broker dead-lettered it from the queue {queue}: {reason}")
        }
        _ => "it is on the dead-letter queue without a cause".to_owned(),
    };
    let failure = DeadLetterFailure {
        at: at.unwrap_or_else(Utc::now).trunc_subsecs(6),
        cause: cause.as_str().to_owned(),
        error,
        sqlstate: None,
        attempts: headers::attempts(headers),
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

fn property(value: &Option<ShortString>) -> Option<String> {
    value.as_ref().map(|value| value.as_str().to_owned())
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
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn letter() -> DeadLetter {
        let failure = DeadLetterFailure {
            at: item::now(),
            cause: "poison".to_owned(),
            error: "refused".to_owned(),
            sqlstate: Some("23514".to_owned()),
            attempts: 2,
        };
        let mut headers = Map::new();
        headers.insert("CC".to_owned(), vec!["elsewhere"].into());
        headers.insert(frame::VERSION_HEADER.to_owned(), 2.into());
        DeadLetter {
            event_id: Some(Uuid::new_v4()),
            event_type: Some("order.placed".to_owned()),
            content_type: Some("application/json".to_owned()),
            message_id: Some("m-1".to_owned()),
            frame: true,
            headers,
            ..DeadLetter::new(Uuid::now_v7(), failure, "eclusa.events", b"[1]".to_vec())
        }
    }

    #[test]
    fn a_letter_comes_back_from_the_queue_as_it_went() {
        let letter = letter();
        let properties = properties(&letter);
        let headers = properties.headers().clone().unwrap();
        assert!(
            headers.inner().get("CC").is_none(),
            "the broker would act on it"
        );
        let back = read(letter.body.clone(), &properties, MissingId::Random);
        assert_eq!(back, letter);
        assert_eq!(
            headers::integer(&properties_of(&back), frame::VERSION_HEADER),
            Some(2)
        );
    }

    #[test]
    fn what_the_broker_put_aside_says_why_and_is_one_letter_however_often_it_comes() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), long("expired"));
        death.insert("queue".into(), long("eclusa.events"));
        death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        let mut headers = FieldTable::default();
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m-1".into());
        let first = read(b"{}".to_vec(), &properties, MissingId::Random);
        assert_eq!(first.failure.cause, "expired");
        assert_eq!(first.origin, "eclusa.events");
        assert_eq!(first.failure.at.timestamp(), 1_700_000_000);
        assert_eq!(first.headers["x-death"][0]["reason"], "expired");
        assert_eq!(first, read(b"{}".to_vec(), &properties, MissingId::Random));
    }

    #[test]
    fn only_what_is_known_to_be_the_same_message_is_the_same_letter() {
        let none = BasicProperties::default();
        let named = none.clone().with_message_id("m-1".into());
        let id =
            |properties, body: &[u8], item, missing_id| id_of(properties, body, item, missing_id);
        let random = MissingId::Random;
        assert_eq!(
            id(&named, b"a", Some(1), random),
            id(&named, b"a", Some(1), random)
        );
        assert_ne!(
            id(&named, b"a", Some(1), random),
            id(&named, b"a", Some(2), random)
        );
        assert_ne!(id(&none, b"a", None, random), id(&none, b"a", None, random));
        let content = MissingId::Content;
        assert_eq!(
            id(&none, b"a", None, content),
            id(&none, b"a", None, content)
        );
    }
}

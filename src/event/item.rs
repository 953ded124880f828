//! One item of a request or message: JSON text to checked fields, all flaws at once.

mod raw;

use super::{Event, Source, id, json};
use chrono::{DateTime, Datelike, SubsecRound, Utc};
use memchr::memchr;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

pub use raw::RawItem;

/// What an item may hold at most. Part of the settings that change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemLimits {
    /// Levels of nesting in `eventData`.
    pub max_depth: usize,
    /// UTF-8 bytes of `id`, `userId`, `eventType` and `sessionId`, each.
    pub max_field_bytes: usize,
    /// How many days back the day inside a UUIDv7 id may lie.
    pub accept_days: u32,
}

/// What is asked of an item besides its limits; it depends on the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An item without `userId` is refused.
    pub user_required: bool,
    /// Fields that Eclusa does not know are refused: a misspelt field is an error the caller can
    /// still mend. Otherwise they are kept in `eventData`: as it, where the item has none, else in
    /// its member [`EXTRA`].
    pub refuse_unknown: bool,
}

impl Rules {
    /// HTTP callers hear the answer, so they are held to the letter.
    pub const HTTP: Rules = Rules {
        user_required: true,
        refuse_unknown: true,
    };
    /// A foreign publisher hears nothing; what can be stored of its message is.
    pub const AMQP: Rules = Rules {
        user_required: false,
        refuse_unknown: false,
    };
}

/// What is wrong with one field of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name on the wire; empty when it is the item as a whole.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl FieldError {
    /// A flaw of `field`.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

/// The checked fields of an item, before it has an identity.
#[derive(Debug, Clone)]
pub struct Fields {
    /// The caller's id.
    pub id: Option<String>,
    /// `userId`.
    pub user_id: Option<String>,
    /// `eventType`.
    pub event_type: String,
    /// `eventData`, `{}` when absent.
    pub event_data: Box<RawValue>,
    /// `sessionId`.
    pub session_id: Option<String>,
    /// `timestamp`, in whole microseconds, as both stores keep it.
    pub timestamp: Option<DateTime<Utc>>,
}

impl Fields {
    /// Makes the event: `event_id` is the identity that was settled for it.
    pub fn into_event(
        self,
        event_id: Uuid,
        original_id: Option<String>,
        producer: Arc<str>,
        source: Source,
        received_at: DateTime<Utc>,
    ) -> Event {
        Event {
            event_id,
            original_id,
            producer,
            user_id: self.user_id,
            event_type: self.event_type,
            event_data: self.event_data,
            session_id: self.session_id,
            timestamp: self.timestamp,
            received_at,
            source,
        }
    }
}

/// The identity a caller's `id` stands for, and the id as it came if that is another.
///
/// # Errors
/// Why the id cannot be taken.
pub fn resolve_id(
    given: String,
    producer: &str,
    now: DateTime<Utc>,
    accept_days: u32,
) -> Result<(Uuid, Option<String>), String> {
    // Only the canonical spelling counts as a UUID; 32 hexadecimal digits are more often a hash.
    let uuid = (given.len() == 36)
        .then(|| Uuid::try_parse(&given).ok())
        .flatten();
    match uuid {
        Some(uuid) if uuid.is_nil() || uuid.is_max() => {
            Err("is the nil or max UUID, which identifies nothing".to_owned())
        }
        Some(uuid) => {
            id::check_day(&uuid, now, accept_days)?;
            Ok((uuid, None))
        }
        None => Ok((id::of_producer(producer, &given), Some(given))),
    }
}

/// The current time in whole microseconds, as both stores keep it.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// No time in RFC 3339 that anybody means is longer.
const MAX_TIME_BYTES: usize = 64;

/// Where fields beside those of an event are kept in an `eventData` that is there already.
pub const EXTRA: &str = "_extra";

/// Flaws of one kind that are told one by one of an item.
const MAX_TOLD: usize = 16;

/// The fields of an item on the wire.
const KNOWN: [&str; 6] = [
    "id",
    "userId",
    "eventType",
    "eventData",
    "sessionId",
    "timestamp",
];

/// Reads one item.
///
/// # Errors
/// Everything that is wrong with it, field by field.
pub fn parse(text: &str, limits: &ItemLimits, rules: Rules) -> Result<Fields, Vec<FieldError>> {
    check(RawItem::read(text), limits, rules)
}

/// Checks the fields of an item.
///
/// # Errors
/// Everything that is wrong with it, field by field.
pub fn check<'a>(
    mut raw: RawItem<'a>,
    limits: &ItemLimits,
    rules: Rules,
) -> Result<Fields, Vec<FieldError>> {
    if let Some(reason) = raw.broken {
        return Err(vec![FieldError::new("", reason)]);
    }
    let mut flaws = std::mem::take(&mut raw.flaws);
    if rules.refuse_unknown {
        flaws.extend(
            raw.unknown
                .iter()
                .take(MAX_TOLD)
                .map(|(name, _)| unknown_field(name)),
        );
        if let Some(more) = raw.unknown.len().checked_sub(MAX_TOLD + 1) {
            let reason = format!("has {} more fields that are not an event's", more + 1);
            flaws.push(FieldError::new("", reason));
        }
    }

    let mut text_field = |name: &str, value: Option<&'a RawValue>| {
        let max_bytes = if name == "timestamp" {
            MAX_TIME_BYTES
        } else {
            limits.max_field_bytes
        };
        text_value(value, max_bytes).unwrap_or_else(|reason| {
            flaws.push(FieldError::new(name, reason));
            None
        })
    };
    let id = text_field("id", raw.id);
    let user_id = text_field("userId", raw.user_id);
    let event_type = text_field("eventType", raw.event_type);
    let session_id = text_field("sessionId", raw.session_id);
    let timestamp = text_field("timestamp", raw.timestamp).and_then(|text| {
        time_value(&text)
            .map_err(|reason| flaws.push(FieldError::new("timestamp", reason)))
            .ok()
    });

    let flawed = |flaws: &[FieldError], name: &str| flaws.iter().any(|f| f.field == name);
    if rules.user_required && user_id.is_none() && !flawed(&flaws, "userId") {
        flaws.push(FieldError::new("userId", "is required"));
    }
    if event_type.is_none() && !flawed(&flaws, "eventType") {
        flaws.push(FieldError::new("eventType", "is required"));
    }
    let with_extra = (!rules.refuse_unknown && !raw.unknown.is_empty())
        .then(|| keep_unknown(raw.event_data, &raw.unknown));
    let event_data = match with_extra.transpose() {
        Ok(None) => data_value(raw.event_data, limits.max_depth),
        Ok(Some(data)) => data_value(Some(&data), limits.max_depth),
        Err(reason) => Err(reason),
    };
    let event_data = match event_data {
        Ok(data) => data,
        Err(reason) => {
            flaws.push(FieldError::new("eventData", reason));
            None
        }
    };
    match (flaws.is_empty(), event_type, event_data) {
        (true, Some(event_type), Some(event_data)) => Ok(Fields {
            id: id.map(Cow::into_owned),
            user_id: user_id.map(Cow::into_owned),
            event_type: event_type.into_owned(),
            event_data,
            session_id: session_id.map(Cow::into_owned),
            timestamp,
        }),
        _ => Err(flaws),
    }
}

/// The payload with an item's unknown fields in it, so that none is lost.
fn keep_unknown(
    data: Option<&RawValue>,
    unknown: &[(String, &RawValue)],
) -> Result<Box<RawValue>, String> {
    let members: Vec<String> = unknown
        .iter()
        .map(|(name, value)| {
            let name = serde_json::to_string(name).unwrap_or_default();
            format!("{name}:{}", value.get())
        })
        .collect();
    let extra = format!("{{{}}}", members.join(","));
    let text = match data.map(RawValue::get) {
        None | Some("null") => extra,
        Some(data) => match data.trim_end().strip_suffix('}') {
            Some(open) if data.starts_with('{') => {
                let comma = if open.trim_end().ends_with('{') {
                    ""
                } else {
                    ","
                };
                format!("{open}{comma}\"{EXTRA}\":{extra}}}")
            }
            // No object: refused for that, with what it is.
            _ => data.to_owned(),
        },
    };
    RawValue::from_string(text).map_err(|error| json_reason(&error))
}

/// An unknown field, with the known one it may have been meant for.
fn unknown_field(name: &str) -> FieldError {
    let shown: String = name.chars().take(64).collect();
    let name = shown.as_str();
    let near = KNOWN
        .into_iter()
        .map(|known| {
            (
                strsim::damerau_levenshtein(
                    &known.to_lowercase(),
                    &name.to_lowercase().replace(['_', '-'], ""),
                ),
                known,
            )
        })
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let reason = match near {
        Some((_, known)) => format!("is not a field of an event; did you mean {known}?"),
        None => format!(
            "is not a field of an event ({}); put it into eventData",
            KNOWN.join(", ")
        ),
    };
    FieldError::new(name, reason)
}

/// serde_json's message; the position counts within the item.
fn json_reason(error: &serde_json::Error) -> String {
    format!("is not valid JSON: {error}")
}

/// What kind of JSON value a text is, for messages.
fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A string field: absent and `null` are the same, the empty string is refused.
fn text_value(value: Option<&RawValue>, max_bytes: usize) -> Result<Option<Cow<'_, str>>, String> {
    let Some(value) = value.filter(|v| v.get() != "null") else {
        return Ok(None);
    };
    if !value.get().starts_with('"') {
        return Err(format!("must be a string, not {}", kind(value)));
    }
    // The literal is at most six times as long as the text (\u0041), plus the quotes.
    let too_long = || format!("is longer than {max_bytes} bytes");
    if value.get().len() > 6 * max_bytes + 2 {
        return Err(too_long());
    }
    let text = unquoted(value.get())?;
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > max_bytes {
        return Err(too_long());
    }
    if text.contains('\0') {
        return Err("contains U+0000, which PostgreSQL cannot store".to_owned());
    }
    Ok(Some(text))
}

/// The text that a string literal stands for.
fn unquoted(literal: &str) -> Result<Cow<'_, str>, String> {
    if let Some(inner) = literal.strip_prefix('"').and_then(|l| l.strip_suffix('"'))
        && memchr(b'\\', inner.as_bytes()).is_none()
    {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(literal)
        .map(Cow::Owned)
        .map_err(|error| {
            if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") {
                "contains a lone surrogate, which is no character".to_owned()
            } else {
                json_reason(&error)
            }
        })
}

/// A point in time: RFC 3339 with an offset, cut to microseconds.
fn time_value(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.with_timezone(&Utc).trunc_subsecs(6))
        .filter(|time| is_writable(*time))
        .ok_or_else(|| {
            "must be a time with an offset as in RFC 3339, such as 2026-01-31T09:30:00Z".to_owned()
        })
}

/// Whether RFC 3339 has the time. In another offset a time of the last hours of 9999 lies in the year
/// 10000.
pub fn is_writable(time: DateTime<Utc>) -> bool {
    (0..=9999).contains(&time.year())
}

/// The payload; `Ok(None)` never comes back, it only keeps the two failures apart.
fn data_value(value: Option<&RawValue>, max_depth: usize) -> Result<Option<Box<RawValue>>, String> {
    match value {
        None => empty_object(),
        Some(value) if value.get() == "null" => empty_object(),
        Some(value) if value.get().starts_with('{') => {
            json::check(value.get(), max_depth)?;
            Ok(Some(value.to_owned()))
        }
        Some(value) => Err(format!("must be a JSON object, not {}", kind(value))),
    }
}

fn empty_object() -> Result<Option<Box<RawValue>>, String> {
    RawValue::from_string("{}".to_owned())
        .map(Some)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

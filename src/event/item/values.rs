//! The values of an item's fields: text, time and payload.

use crate::event::json;
use chrono::{DateTime, Datelike, SubsecRound, Utc};
use memchr::memchr;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A string field: absent and `null` are the same, the empty string is refused.
pub(super) fn text_value(
    value: Option<&RawValue>,
    max_bytes: usize,
) -> Result<Option<Cow<'_, str>>, String> {
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
pub(super) fn time_value(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.with_timezone(&Utc).trunc_subsecs(6))
        .filter(|time| is_writable(*time))
        .ok_or_else(|| {
            "must be a time with an offset as in RFC 3339, such as 2026-01-31T09:30:00Z".to_owned()
        })
}

/// Whether RFC 3339 can express the time. With another offset, the last hours of 9999 lie in the
/// year 10000.
pub fn is_writable(time: DateTime<Utc>) -> bool {
    (0..=9999).contains(&time.year())
}

/// The version of a schema: a whole number from 1 to 32,767, also spelt with a fraction of zero.
pub(super) fn version_value(value: Option<&RawValue>) -> Result<Option<i16>, String> {
    let Some(value) = value.filter(|v| v.get() != "null") else {
        return Ok(None);
    };
    let number: Option<f64> = serde_json::from_str(value.get()).ok();
    let whole = number
        .filter(|number| number.fract() == 0.0 && (1.0..=f64::from(i16::MAX)).contains(number));
    match whole {
        Some(number) => Ok(Some(number as i16)),
        None => Err(format!("must be a whole number from 1 to {}", i16::MAX)),
    }
}

/// The payload: absent and `null` are the empty object.
pub(super) fn data_value(
    value: Option<&RawValue>,
    max_depth: usize,
) -> Result<Box<RawValue>, String> {
    match value {
        Some(value) if value.get().starts_with('{') => {
            json::check(value.get(), max_depth)?;
            Ok(value.to_owned())
        }
        Some(value) if value.get() != "null" => {
            Err(format!("must be a JSON object, not {}", kind(value)))
        }
        _ => RawValue::from_string("{}".to_owned()).map_err(|error| error.to_string()),
    }
}

/// serde_json's message; the position counts within the item.
pub(super) fn json_reason(error: &serde_json::Error) -> String {
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

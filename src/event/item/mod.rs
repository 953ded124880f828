//! One item of a request or message: from JSON text to checked fields, with all errors at once.

mod data_rules;
mod identity;
mod raw;
mod rules;
mod values;
mod violation;

use super::{Event, Source};
use chrono::{DateTime, SubsecRound, Utc};
use rules::MAX_REPORTED;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;
use values::{data_value, json_reason, text_value, time_value, version_value};

pub use data_rules::{CheckedData, DataRules};
pub use identity::resolve_id;
pub use raw::RawItem;
pub use rules::{FieldError, ItemLimits, Rules};
pub use values::is_writable;
pub use violation::SchemaViolation;

/// Longest timestamp; a valid RFC 3339 time is shorter.
const MAX_TIME_BYTES: usize = 64;

/// The member of `eventData` that keeps an item's unknown fields.
pub const EXTRA: &str = "_extra";

/// The fields of an item on the wire.
const KNOWN: [&str; 7] = [
    "id",
    "userId",
    "eventType",
    "eventData",
    "schemaVersion",
    "sessionId",
    "timestamp",
];

/// The checked fields of an item, before it has an identity.
#[derive(Debug, Clone)]
pub struct Fields {
    pub id: Option<String>,
    /// `userId`.
    pub user_id: Option<String>,
    /// `eventType`.
    pub event_type: String,
    /// `eventData`, `{}` when absent.
    pub event_data: Box<RawValue>,
    /// `schemaVersion`, or the version that its absence stands for.
    pub schema_version: Option<i16>,
    /// The rule of its schema that the event breaks: it is to become a dead letter.
    pub quarantined: Option<Box<SchemaViolation>>,
    /// `sessionId`.
    pub session_id: Option<String>,
    /// `timestamp`, in whole microseconds, as both stores keep it.
    pub timestamp: Option<DateTime<Utc>>,
}

impl Fields {
    /// Makes the event, with the identity that was resolved for it.
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
            schema_version: self.schema_version,
            session_id: self.session_id,
            timestamp: self.timestamp,
            received_at,
            source,
        }
    }
}

/// The current time in whole microseconds, as both stores keep it.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Reads and checks one item.
///
/// # Errors
/// All its errors, field by field.
pub fn parse(text: &str, limits: &ItemLimits, rules: Rules) -> Result<Fields, Vec<FieldError>> {
    check(RawItem::read(text), limits, rules)
}

/// Checks the fields of an item.
///
/// # Errors
/// All its errors, field by field.
pub fn check<'a>(
    mut raw: RawItem<'a>,
    limits: &ItemLimits,
    rules: Rules,
) -> Result<Fields, Vec<FieldError>> {
    if let Some(reason) = raw.broken {
        return Err(vec![FieldError::new("", reason)]);
    }
    let mut flaws = std::mem::take(&mut raw.flaws);
    let version = version_value(raw.schema_version).unwrap_or_else(|reason| {
        match raw.schema_version {
            // A field of the publisher's own that has the same name.
            Some(value) if !rules.refuse_unknown => {
                raw.unknown.push(("schemaVersion".to_owned(), value));
            }
            _ => flaws.push(FieldError::new("schemaVersion", reason)),
        }
        None
    });
    if rules.refuse_unknown {
        flaws.extend(
            raw.unknown
                .iter()
                .take(MAX_REPORTED)
                .map(|(name, _)| unknown_field(name)),
        );
        if let Some(more) = raw.unknown.len().checked_sub(MAX_REPORTED + 1) {
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
    let event_data = with_extra
        .transpose()
        .and_then(|data| data_value(data.as_deref().or(raw.event_data), limits.max_depth))
        .map_err(|reason| flaws.push(FieldError::new("eventData", reason)))
        .ok();
    let checked = match (event_type.as_deref(), &event_data) {
        (Some(event_type), Some(data)) => limits.data.check(event_type, version, data.get()),
        _ => Ok(CheckedData::default()),
    };
    let checked = checked.unwrap_or_else(|found| {
        flaws.extend(found);
        CheckedData::default()
    });
    let quarantined = match checked.quarantined {
        Some(violation) if !rules.may_quarantine => {
            flaws.push(FieldError::from(*violation));
            None
        }
        quarantined => quarantined,
    };
    match (flaws.is_empty(), event_type, event_data) {
        (true, Some(event_type), Some(event_data)) => Ok(Fields {
            id: id.map(Cow::into_owned),
            user_id: user_id.map(Cow::into_owned),
            event_type: event_type.into_owned(),
            event_data,
            schema_version: checked.schema_version,
            quarantined,
            session_id: session_id.map(Cow::into_owned),
            timestamp,
        }),
        _ => Err(flaws),
    }
}

/// The payload with the item's unknown fields added to it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ItemLimits = ItemLimits {
        max_depth: 16,
        max_field_bytes: 32,
        accept_days: 400,
        data: DataRules::NONE,
    };

    fn flaws(text: &str) -> Vec<(String, String)> {
        parse(text, &LIMITS, Rules::HTTP)
            .unwrap_err()
            .into_iter()
            .map(|f| (f.field, f.reason))
            .collect()
    }

    #[test]
    fn a_whole_item_is_read() {
        let fields = parse(
            r#"{"id":"a1","userId":"u","eventType":"t","eventData":{"n":1.0},"sessionId":null,
                "timestamp":"2026-01-31T10:30:00.1234567+01:00"}"#,
            &LIMITS,
            Rules::HTTP,
        )
        .unwrap();
        assert_eq!(fields.id.as_deref(), Some("a1"));
        assert_eq!(fields.event_data.get(), r#"{"n":1.0}"#);
        assert_eq!(fields.session_id, None);
        assert_eq!(
            fields.timestamp.unwrap().to_rfc3339(),
            "2026-01-31T09:30:00.123456+00:00"
        );
    }

    #[test]
    fn data_defaults_to_an_empty_object_and_user_only_http_requires() {
        let text = r#"{"eventType":"t","more":1}"#;
        let fields = parse(text, &LIMITS, Rules::AMQP).unwrap();
        assert_eq!(fields.event_data.get(), r#"{"more":1}"#);
        let found = flaws(text);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn fields_beside_an_events_are_kept_where_they_are_not_refused() {
        let data = |text: &str| {
            let fields = parse(text, &LIMITS, Rules::AMQP).unwrap();
            fields.event_data.get().to_owned()
        };
        assert_eq!(
            data(r#"{"eventType":"t","total":12.50,"items":[1]}"#),
            r#"{"total":12.50,"items":[1]}"#
        );
        assert_eq!(
            data(r#"{"eventType":"t","eventData":{"a":1},"processed":false}"#),
            r#"{"a":1,"_extra":{"processed":false}}"#
        );
        assert_eq!(
            data(r#"{"eventType":"t","eventData":{},"processed":false}"#),
            r#"{"_extra":{"processed":false}}"#
        );
        let twice = r#"{"eventType":"t","total":1,"total":2}"#;
        assert!(parse(twice, &LIMITS, Rules::AMQP).is_err());
    }

    #[test]
    fn all_flaws_are_told_at_once() {
        let found = flaws(
            r#"{"userId":7,"eventType":"","eventData":[],"timestamp":"yesterday","session_id":"s"}"#,
        );
        let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "session_id",
                "userId",
                "eventType",
                "timestamp",
                "eventData"
            ]
        );
        assert!(
            found[0].1.contains("did you mean sessionId"),
            "{}",
            found[0].1
        );
    }

    #[test]
    fn texts_no_store_takes_are_refused() {
        for (value, reason) in [
            (r#""a\u0000b""#, "U+0000"),
            (r#""\uD800""#, "surrogate"),
            (r#""012345678901234567890123456789012""#, "longer than 32"),
            ("true", "not a boolean"),
        ] {
            let found = flaws(&format!(r#"{{"userId":{value},"eventType":"t"}}"#));
            assert!(found[0].1.contains(reason), "{value}: {found:?}");
        }
        assert!(
            flaws(r#"{"userId":"u","userId":"v","eventType":"t"}"#)[0]
                .1
                .contains("twice")
        );
        assert!(flaws("[1]")[0].1.contains("object"));
    }
}

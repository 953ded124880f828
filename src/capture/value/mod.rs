//! Values of columns: from PostgreSQL's text to JSON, exactly.

mod array;
mod kind;
mod text;

pub use kind::{DEFAULT_DELIMITER, ValueKind};

use crate::event::json;
use text::{base64_of_hex, iso_timestamp, utc_time, write_string};

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueStyle {
    /// JSON's own types wherever they hold the value exactly.
    Plain,
    /// As Debezium writes them with `decimal.handling.mode=string`, `time.precision.mode=isostring`,
    /// `interval.handling.mode=string` and `binary.handling.mode=base64`.
    Debezium,
}

/// How a value is written, and how deep JSON inside it may be nested.
#[derive(Debug, Clone, Copy)]
pub struct ValueWriter {
    pub style: ValueStyle,
    pub max_depth: usize,
}

impl ValueWriter {
    /// Appends the JSON of a value that is not null.
    ///
    /// # Errors
    /// Why no event can hold the value; the reason does not repeat it.
    pub fn write(&self, kind: &ValueKind, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let plain = self.style == ValueStyle::Plain;
        match kind {
            ValueKind::Boolean => out.extend_from_slice(match text {
                "t" => b"true",
                "f" => b"false",
                _ => return Err("is not a boolean".to_owned()),
            }),
            // All digits are kept: a number of JSON has no bounds of its own.
            ValueKind::Integer => self.number(text, out),
            ValueKind::Numeric if plain => self.number(text, out),
            ValueKind::Float => self.number(text, out),
            ValueKind::Timestamp | ValueKind::TimestampTz => {
                let with_zone = *kind == ValueKind::TimestampTz || !plain;
                match iso_timestamp(text, with_zone) {
                    Some(iso) => write_string(&iso, out),
                    None => write_string(text, out),
                }
            }
            ValueKind::Date if !plain && is_plain_time(text) => {
                write_string(&format!("{text}Z"), out);
            }
            ValueKind::Time if !plain => write_string(&format!("{text}Z"), out),
            ValueKind::TimeTz if !plain => match utc_time(text) {
                Some(time) => write_string(&time, out),
                None => write_string(text, out),
            },
            ValueKind::Bytes => write_string(&base64_of_hex(text)?, out),
            ValueKind::Json if plain => {
                json::check(text, self.max_depth)?;
                out.extend_from_slice(text.as_bytes());
            }
            ValueKind::Array { element, delimiter } => {
                return self.array(element, *delimiter, text, out);
            }
            _ => write_string(text, out),
        }
        Ok(())
    }

    /// Appends the digits as they are, or the text of what is no number of JSON: `NaN`, `Infinity`, `-Infinity`.
    fn number(&self, text: &str, out: &mut Vec<u8>) {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.starts_with(|first: char| first.is_ascii_digit()) {
            out.extend_from_slice(text.as_bytes());
        } else {
            write_string(text, out);
        }
    }
}

/// Whether a date or time is neither infinite nor before Christ.
fn is_plain_time(text: &str) -> bool {
    text.ends_with(|last: char| last.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: ValueStyle, kind: ValueKind, text: &str) -> String {
        let writer = ValueWriter {
            style,
            max_depth: 8,
        };
        let mut out = Vec::new();
        writer.write(&kind, text, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        serde_json::from_str::<&serde_json::value::RawValue>(&out).unwrap();
        out
    }

    #[test]
    fn each_kind_has_its_json() {
        let array = |element| ValueKind::Array {
            element: Box::new(element),
            delimiter: DEFAULT_DELIMITER,
        };
        for (kind, text, plain, debezium) in [
            (ValueKind::Boolean, "t", "true", "true"),
            (
                ValueKind::Integer,
                "-9223372036854775808",
                "-9223372036854775808",
                "-9223372036854775808",
            ),
            (
                ValueKind::Numeric,
                "12345678901234567890.1234567890",
                "12345678901234567890.1234567890",
                "\"12345678901234567890.1234567890\"",
            ),
            (ValueKind::Numeric, "NaN", "\"NaN\"", "\"NaN\""),
            (ValueKind::Float, "1e-05", "1e-05", "1e-05"),
            (
                ValueKind::Float,
                "-Infinity",
                "\"-Infinity\"",
                "\"-Infinity\"",
            ),
            (
                ValueKind::Text,
                "a\"\u{1}\n",
                r#""a\"\u0001\n""#,
                r#""a\"\u0001\n""#,
            ),
            (
                ValueKind::Date,
                "2026-01-02",
                "\"2026-01-02\"",
                "\"2026-01-02Z\"",
            ),
            (
                ValueKind::Date,
                "0044-03-15 BC",
                "\"0044-03-15 BC\"",
                "\"0044-03-15 BC\"",
            ),
            (
                ValueKind::Time,
                "03:04:05.678",
                "\"03:04:05.678\"",
                "\"03:04:05.678Z\"",
            ),
            (
                ValueKind::TimeTz,
                "03:04:05+02",
                "\"03:04:05+02\"",
                "\"01:04:05Z\"",
            ),
            (
                ValueKind::Timestamp,
                "2026-01-02 03:04:05.678901",
                "\"2026-01-02T03:04:05.678901\"",
                "\"2026-01-02T03:04:05.678901Z\"",
            ),
            (
                ValueKind::TimestampTz,
                "2026-01-02 03:04:05+00",
                "\"2026-01-02T03:04:05Z\"",
                "\"2026-01-02T03:04:05Z\"",
            ),
            (
                ValueKind::TimestampTz,
                "infinity",
                "\"infinity\"",
                "\"infinity\"",
            ),
            (
                ValueKind::Timestamp,
                "0044-03-15 12:00:00 BC",
                "\"0044-03-15 12:00:00 BC\"",
                "\"0044-03-15 12:00:00 BC\"",
            ),
            (
                ValueKind::Interval,
                "P1Y2M3DT4H5M6.5S",
                "\"P1Y2M3DT4H5M6.5S\"",
                "\"P1Y2M3DT4H5M6.5S\"",
            ),
            (ValueKind::Bytes, "\\x00ff10", "\"AP8Q\"", "\"AP8Q\""),
            (
                ValueKind::Json,
                "{\"a\": 1.0000000000000000000000001e400}",
                "{\"a\": 1.0000000000000000000000001e400}",
                r#""{\"a\": 1.0000000000000000000000001e400}""#,
            ),
            (
                array(ValueKind::Integer),
                "{{1,NULL},{3,4}}",
                "[[1,null],[3,4]]",
                "[[1,null],[3,4]]",
            ),
            (
                array(ValueKind::Text),
                r#"{"a,\"b",NULL,"NULL",""}"#,
                r#"["a,\"b",null,"NULL",""]"#,
                r#"["a,\"b",null,"NULL",""]"#,
            ),
            (
                array(ValueKind::Integer),
                "[0:1]={1,2}",
                "\"[0:1]={1,2}\"",
                "\"[0:1]={1,2}\"",
            ),
            (
                array(ValueKind::Json),
                r#"{"{\"a\":[1]}",null}"#,
                r#"[{"a":[1]},null]"#,
                r#"["{\"a\":[1]}",null]"#,
            ),
            (
                array(ValueKind::Timestamp),
                r#"{"2026-01-02 03:04:05"}"#,
                r#"["2026-01-02T03:04:05"]"#,
                r#"["2026-01-02T03:04:05Z"]"#,
            ),
            (array(ValueKind::Boolean), "{}", "[]", "[]"),
        ] {
            assert_eq!(written(ValueStyle::Plain, kind.clone(), text), plain);
            assert_eq!(written(ValueStyle::Debezium, kind, text), debezium);
        }
    }

    #[test]
    fn what_the_log_cannot_hold_is_refused() {
        let writer = ValueWriter {
            style: ValueStyle::Plain,
            max_depth: 3,
        };
        for text in [
            r#"{"a":"\u0000"}"#,
            r#"{"a":1e200000}"#,
            "[[[[1]]]]",
            r#"{"a":1,"a":2}"#,
        ] {
            let refused = writer.write(&ValueKind::Json, text, &mut Vec::new());
            assert!(refused.is_err(), "{text}");
        }
    }
}

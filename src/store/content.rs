//! Whether an event that came again under the same id says the same.

use crate::event::{Event, StoredEvent};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Nesting below which payloads are no longer compared. Every level reads its text again, so this
/// bounds the work; what lies deeper counts as equal.
const MAX_DEPTH: usize = 128;

/// Whether `event` has other content than the one the log already has under its id.
///
/// Its time counts only if the producer gave one: otherwise it is the time of receipt, which
/// differs on every delivery. Payloads are compared as JSON, see [`same_json`].
pub fn conflicts(event: &Event, stored: &StoredEvent) -> bool {
    let other_time = event
        .timestamp
        .is_some_and(|time| time.timestamp_micros() != stored.timestamp.timestamp_micros());
    other_time
        || event.user_id != stored.user_id
        || event.event_type != stored.event_type
        || event.session_id != stored.session_id
        || !same_json(&event.event_data, &stored.event_data)
}

/// Whether two JSON texts mean the same: the order of keys, white space, escapes and the spelling
/// of numbers (`1`, `1.0`, `10e-1`) make no difference; of equal keys the last one counts, as in
/// `jsonb`.
pub fn same_json(left: &RawValue, right: &RawValue) -> bool {
    let mut pairs = vec![(left, right, 0)];
    while let Some((left, right, depth)) = pairs.pop() {
        let (a, b) = (left.get(), right.get());
        if a == b || depth > MAX_DEPTH {
            continue;
        }
        let below = depth + 1;
        match (first(a), first(b)) {
            (b'{', b'{') => {
                let (Some(a), Some(b)) = (object(a), object(b)) else {
                    return false;
                };
                if a.len() != b.len() {
                    return false;
                }
                for ((a_key, a_value), (b_key, b_value)) in a.into_iter().zip(b) {
                    if a_key != b_key {
                        return false;
                    }
                    pairs.push((a_value, b_value, below));
                }
            }
            (b'[', b'[') => {
                let (Some(a), Some(b)) = (array(a), array(b)) else {
                    return false;
                };
                if a.len() != b.len() {
                    return false;
                }
                pairs.extend(a.into_iter().zip(b).map(|(a, b)| (a, b, below)));
            }
            (b'"', b'"') => {
                if string(a) != string(b) {
                    return false;
                }
            }
            (b'-' | b'0'..=b'9', b'-' | b'0'..=b'9') => {
                if NumberText::parse(a) != NumberText::parse(b) {
                    return false;
                }
            }
            // Literals are equal only if their texts are.
            _ => return false,
        }
    }
    true
}

fn first(text: &str) -> u8 {
    text.bytes().next().unwrap_or(0)
}

fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

fn array(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// A number as its digits without zeros at either end, and the power of ten of the last one: exact
/// at any size, where a float would take neighbours for equal.
#[derive(PartialEq, Eq)]
struct NumberText {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl NumberText {
    fn parse(text: &str) -> Self {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            // Whatever does not fit is not a number `jsonb` takes either.
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole
            .bytes()
            .chain(fraction.bytes())
            .skip_while(|digit| *digit == b'0')
            .collect();
        let mut exponent =
            exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
        while digits.last() == Some(&b'0') {
            digits.pop();
            exponent = exponent.saturating_add(1);
        }
        if digits.is_empty() {
            // Zero has one spelling, and `jsonb` knows no negative zero.
            return Self {
                negative: false,
                digits,
                exponent: 0,
            };
        }
        Self {
            negative,
            digits,
            exponent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(left: &str, right: &str) -> bool {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        same_json(&raw(left), &raw(right))
    }

    #[test]
    fn spelling_makes_no_difference() {
        for (left, right) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                r#"{ "b" : [true, null], "a": 1.0 }"#,
            ),
            ("1", "1.0"),
            ("1000", "1e3"),
            ("0.001", "10E-4"),
            ("-0", "0.00"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u00e9\/""#, "\"\u{e9}/\""),
            (r#"{"\u0061":{}}"#, r#"{"a":{}}"#),
            ("1e300", &format!("1{}", "0".repeat(300))),
        ] {
            assert!(same(left, right), "{left} {right}");
            assert!(same(right, left), "{right} {left}");
        }
    }

    #[test]
    fn other_content_is_seen() {
        for (left, right) in [
            ("1", "2"),
            ("1", "-1"),
            ("1", "\"1\""),
            ("true", "false"),
            ("null", "0"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567891",
            ),
            ("0.1", "0.10000000000000000001"),
        ] {
            assert!(!same(left, right), "{left} {right}");
            assert!(!same(right, left), "{right} {left}");
        }
    }

    #[test]
    fn deep_nesting_costs_neither_the_stack_nor_quadratic_time() {
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(same(&deep("1"), &deep(" 1.0")));
    }
}

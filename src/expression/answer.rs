//! What an evaluation gives: a text, or why there is none.

use cel::common::types::{CelNull, CelString};
use cel::common::value::Val;
use cel::{ExecutionError, Value};

/// Bytes of a text that an expression gives: a key has to fit into an index.
const MAX_TEXT_BYTES: usize = 1_024;

pub(super) fn is_null(value: &dyn Val) -> bool {
    value.downcast_ref::<CelNull>().is_some()
}

pub(super) fn wrong_type(value: &dyn Val, right: &str) -> String {
    let name = value.get_type().name();
    format!("gives a {name}; it must give {right}")
}

/// The value as a text, unless it is no string.
pub(super) fn text_of(value: &dyn Val) -> Option<Result<String, String>> {
    let text = value.downcast_ref::<CelString>()?.inner();
    Some(if text.len() > MAX_TEXT_BYTES {
        Err(format!("gives a text of more than {MAX_TEXT_BYTES} bytes"))
    } else {
        Ok(text.to_owned())
    })
}

/// What has failed, without values of the event; `None` if the event lacks something.
pub(super) fn failure(error: &ExecutionError) -> Option<String> {
    const NULL: &str = "null_type";
    Some(match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => return None,
        ExecutionError::NoSuchOverload(call) => {
            let types = call.argument_types();
            if types.iter().any(|name| name == NULL) {
                return None;
            }
            let name = call.function().trim_matches(['_', '@']);
            format!("applies {name} to {}", types.join(" and "))
        }
        ExecutionError::UnexpectedType { got, .. } if got == NULL => return None,
        ExecutionError::UnexpectedType { got, want } => {
            format!("has a {got} where it needs a {want}")
        }
        ExecutionError::UnsupportedBinaryOperator(_, left, right)
        | ExecutionError::ValuesNotComparable(left, right)
        | ExecutionError::UnsupportedIndex(left, right) => {
            if matches!(left, Value::Null) || matches!(right, Value::Null) {
                return None;
            }
            let (left, right) = (left.type_of(), right.type_of());
            format!("applies an operator to {left} and {right}, which it does not combine")
        }
        ExecutionError::UnsupportedKeyType(Value::Null) => return None,
        ExecutionError::UnsupportedKeyType(key) => {
            format!("uses a {} as the key of a map", key.type_of())
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "divides by zero".to_owned()
        }
        ExecutionError::Overflow(name, ..) => {
            format!("has a result of {name} that is out of range")
        }
        ExecutionError::DuplicateKey(_) => "makes a map with a key twice".to_owned(),
        ExecutionError::FunctionError { function, .. } => {
            format!("calls {function} with a value that it does not take")
        }
        _ => "cannot be evaluated".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{condition, event, expression};

    #[test]
    fn what_the_event_lacks_is_no_failure() {
        let data = r#"{"plan": "pro", "none": null, "list": [{"a": 1}, {}]}"#;
        for (text, answer) in [
            ("eventData.vip == true", false),
            ("eventData.vip != true", false),
            ("!(eventData.vip == true)", false),
            ("eventData.vip.level == 1", false),
            ("eventData.list[2].a == 1", false),
            ("eventData['vip'] == 1", false),
            ("eventData.vip", false),
            // Decided without it.
            ("eventData.vip == true || eventData.plan == 'pro'", true),
            ("eventData.plan == 'pro' || eventData.vip == true", true),
            ("!(eventData.vip == true && eventData.plan == 'x')", true),
            ("!(eventData.plan == 'x' && eventData.vip == true)", true),
            ("eventData.vip == true && eventData.plan == 'pro'", false),
            ("eventData.plan == 'pro' && eventData.vip == true", false),
            ("eventData.plan == 'x' || eventData.vip == true", false),
            ("eventData.list.exists(i, i.a == 1)", true),
            ("eventData.list.exists(i, i.a == 2)", false),
            ("!eventData.list.exists(i, i.a == 2)", false),
            ("!eventData.list.all(i, i.a == 2)", true),
            ("has(eventData.vip)", false),
            ("has(eventData.none) && !has(eventData.vip)", true),
            ("!has(eventData.vip) || eventData.vip", true),
            // Null equals null only, and any other use of it is as of what is missing.
            ("eventData.none == null", true),
            ("eventData.none != 1", true),
            ("eventData.none > 1", false),
            ("eventData.none + 1 > 0", false),
            ("eventData.none.a == 1", false),
            ("eventData.none", false),
            ("!eventData.none", false),
            ("eventData.none || eventData.plan == 'x'", false),
            ("eventData.none ? true : true", false),
            ("eventData.none.exists(i, true)", false),
            ("eventData.none.startsWith('a')", false),
            ("'a' in eventData.none", false),
            ("size(eventData.none) == 0", false),
            ("sessionId.startsWith('s')", false),
        ] {
            assert_eq!(condition(text, data), Ok(answer), "{text}");
        }
    }

    #[test]
    fn failures_name_the_reason_and_not_the_content() {
        let data = r#"{"secret": "hush", "zero": 0, "big": 9223372036854775807, "o": {"hush": 1}}"#;
        for (text, reason) in [
            (
                "eventData.secret",
                "gives a string; it must give true or false",
            ),
            ("eventData.secret > 1", "applies > to string and int"),
            (
                "eventData.secret + 1 == 2",
                "applies an operator to string and int",
            ),
            (
                "eventData.o + eventData.o == 2",
                "applies an operator to map and map",
            ),
            (
                "eventData.secret.level == 1",
                "applies . to string and string",
            ),
            ("eventData.secret && true", "applies && to string and bool"),
            (
                "eventData.secret ? true : true",
                "has a string where it needs a bool",
            ),
            (
                "eventData.secret.exists(c, true)",
                "has a string where it needs a iterable",
            ),
            ("eventData.big / eventData.zero > 1", "divides by zero"),
            ("eventData.big % eventData.zero > 1", "divides by zero"),
            ("eventData.big + 1 > 1", "out of range"),
            ("eventData.big * 2 > 1", "out of range"),
            ("-eventData.big - 2 < 1", "out of range"),
            ("(-eventData.big - 1) / -1 > 0", "out of range"),
            ("int(eventData.secret) == 1", "calls int with a value"),
            (
                "timestamp(eventData.secret) < timestamp",
                "calls timestamp with",
            ),
            (
                "duration(eventData.secret) < duration('1s')",
                "calls duration with",
            ),
            (
                "timestamp + duration('87000000h') > timestamp",
                "calls duration with",
            ),
            (
                "timestamp('9999-12-31T00:00:00Z') + duration('24h') > timestamp",
                "out of range",
            ),
            (
                "{eventData.secret: 1, 'hush': 2}.size() == 1",
                "a key twice",
            ),
            ("size(1) == 1", "applies size to int"),
        ] {
            let error = expression(text).condition(&event(data)).unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert!(!error.reason.contains("hush"), "{text}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        // Absorbed as what is missing is.
        assert_eq!(condition("1 / 0 > 0 || true", "{}"), Ok(true));
        assert_eq!(condition("1 / 0 > 0 && false", "{}"), Ok(false));
        // The right operand says why.
        assert_eq!(condition("1 / 0 > 0 || eventData.a", "{}"), Ok(false));
        assert!(condition("eventData.a || 1 / 0 > 0", "{}").is_err());
    }
}

//! Expressions over an event, in CEL, the Common Expression Language (<https://cel.dev>).
//!
//! # Variables
//!
//! | variable | type |
//! |---|---|
//! | `id`, `eventType`, `producer`, `source` | string |
//! | `userId`, `sessionId` | string, or null where the event has none |
//! | `timestamp`, `receivedAt` | timestamp |
//! | `eventData` | map |
//!
//! In `eventData` a number without fraction and exponent is an int, above the range of int a uint;
//! any other, and an integer beyond uint, is a double. Numbers of different types can be compared,
//! but not be computed with: `double(eventData.price) * 1.5`.
//!
//! # What is missing
//!
//! An expression that needs what the event does not have has no answer: a condition is false, a text
//! or a time is `None`, texts are empty. That is so for a field or an element that does not exist, and
//! for any use of null but `==` and `!=`. `||`, `&&`, `exists` and `all` decide without it where they
//! can: `eventData.vip == true || eventData.total > 100`. A negation has no answer either:
//! `!(eventData.plan == 'pro')` is false for an event without a plan, and
//! `!has(eventData.plan) || eventData.plan != 'pro'` is true. Where both operands of `||` or `&&`
//! fail, the right one says why. Every other failure is an [`ExpressionError`].
//!
//! # Limits
//!
//! An expression is bounded when it is parsed (`syntax`, `checks`), and so is what it reads of an event
//! (`fields`), so that the time of an evaluation is bounded by the size of the event. Only the parts
//! of `eventData` that an expression names are read, and only when they are needed.

mod answer;
mod checks;
mod field_set;
mod fields;
mod names;
mod syntax;

use crate::event::StoredEvent;
use crate::event::item::is_writable;
use answer::{failure, is_null, text_of, wrong_type};
use cel::common::types::{CelBool, CelList, CelString, CelTimestamp};
use cel::common::value::Val;
use cel::{Context, Env, IdedExpr, Value};
use chrono::{DateTime, Utc};
use field_set::FieldSet;
use fields::EventFields;
use std::sync::{Arc, LazyLock};

/// Texts that an expression gives.
const MAX_TEXTS: usize = 1_000;

/// CEL's functions, without optional values and without regular expressions.
static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// Why a text is no expression that can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression {expression:?} {reason}")]
pub struct InvalidExpression {
    /// The text, or its beginning.
    pub expression: String,
    pub reason: String,
}

/// Why an expression has failed on an event. It shows nothing of the event's content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression {expression:?} {reason}")]
pub struct ExpressionError {
    pub expression: String,
    pub reason: String,
}

/// An expression in CEL over the fields of an event.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    tree: IdedExpr,
    /// What it refers to in `eventData`.
    data: FieldSet,
}

impl Expression {
    /// Parses an expression and checks that it can be evaluated: its syntax, its variables and
    /// functions, and its limits.
    ///
    /// # Errors
    /// What is wrong, with the place if it is the syntax, and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidExpression> {
        let invalid = |reason| InvalidExpression {
            expression: text.chars().take(syntax::MAX_CHARS).collect(),
            reason,
        };
        let tree = syntax::parse(text).map_err(invalid)?;
        let data = checks::check_tree(&tree).map_err(invalid)?;
        Ok(Self {
            text: text.to_owned(),
            tree,
            data,
        })
    }

    /// Parses an expression for [`condition`](Self::condition).
    ///
    /// # Errors
    /// As [`parse`](Self::parse), or it is true or false for no event.
    pub fn parse_condition(text: &str) -> Result<Self, InvalidExpression> {
        let parsed = Self::parse(text)?;
        if names::may_be_bool(&parsed.tree.expr) {
            return Ok(parsed);
        }
        let reason = "is never true or false; a condition compares something, such as \
                      eventData.plan == 'pro'";
        Err(InvalidExpression {
            expression: parsed.text,
            reason: reason.to_owned(),
        })
    }

    /// The text that it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the event satisfies the expression; `false` if it lacks what the expression needs.
    ///
    /// # Errors
    /// The evaluation fails, or its result is not a bool.
    pub fn condition(&self, event: &StoredEvent) -> Result<bool, ExpressionError> {
        let answer = self.evaluate(event, |value| match value.downcast_ref::<CelBool>() {
            Some(answer) => Ok(*answer.inner()),
            None => Err(wrong_type(value, "true or false")),
        })?;
        Ok(answer.unwrap_or(false))
    }

    /// The text that the expression gives, of at most 1,024 bytes; `None` if the event lacks what the
    /// expression needs.
    ///
    /// # Errors
    /// The evaluation fails, or its result is not a string, or too long.
    pub fn text(&self, event: &StoredEvent) -> Result<Option<String>, ExpressionError> {
        self.evaluate(event, |value| {
            text_of(value).unwrap_or_else(|| {
                let right = "a string; string(...) makes one of a number";
                Err(wrong_type(value, right))
            })
        })
    }

    /// The time that the expression gives, a timestamp or a string as in RFC 3339; `None` if the event
    /// lacks what the expression needs.
    ///
    /// # Errors
    /// The evaluation fails, or its result is no time of the years 0 to 9999.
    pub fn time(&self, event: &StoredEvent) -> Result<Option<DateTime<Utc>>, ExpressionError> {
        const RIGHT: &str = "a timestamp or a string such as 2026-01-31T09:30:00Z";
        self.evaluate(event, |value| {
            let time = if let Some(time) = value.downcast_ref::<CelTimestamp>() {
                Some(*time.inner())
            } else if let Some(text) = value.downcast_ref::<CelString>() {
                DateTime::parse_from_rfc3339(text.inner()).ok()
            } else {
                return Err(wrong_type(value, RIGHT));
            };
            time.map(|time| time.with_timezone(&Utc))
                .filter(|time| is_writable(*time))
                .ok_or_else(|| format!("gives a string that is no time; it must give {RIGHT}"))
        })
    }

    /// The texts that the expression gives, a string or a list of strings, at most 1,000 of at most
    /// 1,024 bytes each; none if the event lacks what the expression needs. A null in a list is left
    /// out.
    ///
    /// # Errors
    /// The evaluation fails, or its result is something else, too many or too long.
    pub fn texts(&self, event: &StoredEvent) -> Result<Vec<String>, ExpressionError> {
        const RIGHT: &str = "a string or a list of strings";
        let texts = self.evaluate(event, |value| {
            if let Some(text) = text_of(value) {
                return Ok(vec![text?]);
            }
            let list = value
                .downcast_ref::<CelList>()
                .ok_or_else(|| wrong_type(value, RIGHT))?;
            if list.inner().len() > MAX_TEXTS {
                return Err(format!("gives a list of more than {MAX_TEXTS} elements"));
            }
            list.inner()
                .iter()
                .filter(|value| !is_null(value.as_ref()))
                .map(|value| {
                    text_of(value.as_ref()).unwrap_or_else(|| {
                        let name = value.get_type().name();
                        Err(format!("gives a list with a {name}; it must give {RIGHT}"))
                    })
                })
                .collect()
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// Evaluates the expression and reads its result, or `None` if the event lacks what it needs.
    fn evaluate<T>(
        &self,
        event: &StoredEvent,
        read: impl FnOnce(&dyn Val) -> Result<T, String>,
    ) -> Result<Option<T>, ExpressionError> {
        let fields = EventFields::new(event, &self.data);
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&fields);
        let result = match Value::resolve_val(&self.tree, &context) {
            Ok(value) if is_null(value.as_ref()) => Ok(None),
            Ok(value) => read(value.as_ref()).map(Some),
            Err(error) => match fields.unreadable() {
                Some(reason) => Err(reason.to_owned()),
                None => failure(&error).map_or(Ok(None), Err),
            },
        };
        result.map_err(|reason| ExpressionError {
            expression: self.text.clone(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event with this `eventData`, of a user and without a session.
    pub(super) fn event(data: &str) -> StoredEvent {
        serde_json::from_str(&format!(
            r#"{{
                "sequence": 7, "id": "019ab000-0000-7000-8000-000000000000", "producer": "shop",
                "userId": "u-1", "eventType": "order.paid", "eventData": {data}, "sessionId": null,
                "timestamp": "2026-03-01T10:00:00.5Z", "receivedAt": "2026-03-01T10:00:01Z",
                "source": "http", "processed": false
            }}"#
        ))
        .unwrap()
    }

    pub(super) fn expression(text: &str) -> Expression {
        Expression::parse(text).unwrap()
    }

    /// Only the reason of an error.
    pub(super) fn condition(text: &str, data: &str) -> Result<bool, String> {
        let answer = expression(text).condition(&event(data));
        answer.map_err(|error| error.reason)
    }

    #[test]
    fn conditions_refer_to_all_fields() {
        for text in [
            "id == '019ab000-0000-7000-8000-000000000000'",
            "eventType == 'order.paid' && eventType.startsWith('order.')",
            "producer == 'shop' && source == 'http'",
            "userId == 'u-1' && sessionId == null",
            "timestamp == timestamp('2026-03-01T11:00:00.5+01:00')",
            "receivedAt - timestamp == duration('500ms')",
            "timestamp.getFullYear() == 2026 && timestamp.getDayOfYear() == 59",
            "eventData.plan == 'pro' && eventData['plan'].contains('r')",
            "eventData.plan in ['pro', 'team'] && 'plan' in eventData",
            "eventData.cart.size() == 2 && size(eventData.cart[1].sku) == 1",
            "eventData.cart.exists(i, i.sku == eventData.wish && i.count > 1)",
            "eventData.cart.all(i, i.count > 0) && eventData.cart.exists_one(i, i.count == 1)",
            "eventData.cart.filter(i, i.count > 1).size() == 1",
            "eventData.cart.map(i, i.count > 1, i.sku) == ['ü']",
            "eventData.wish != 'x' ? true : false",
        ] {
            let data = r#"{"plan": "pro", "wish": "\u00fc", "cart": [
                {"sku": "a", "count": 1}, {"sku": "ü", "count": 2}]}"#;
            assert_eq!(condition(text, data), Ok(true), "{text}");
        }
    }

    #[test]
    fn numbers_compare_by_value_and_compute_by_type() {
        let data = r#"{"int": 2, "neg": -3, "double": 2.0, "exp": 2e0, "half": 0.5,
            "uint": 18446744073709551615, "huge": 1e300, "beyond": 18446744073709551616,
            "exact": 9007199254740993}"#;
        for text in [
            "eventData.int == eventData.double && eventData.double == eventData.exp",
            "eventData.int > eventData.half && eventData.half < eventData.int",
            "eventData.neg < eventData.uint && eventData.neg < eventData.half",
            "eventData.uint == 18446744073709551615u && eventData.uint > eventData.int",
            "eventData.beyond == 18446744073709551616.0 && eventData.beyond < eventData.huge",
            "eventData.exact == 9007199254740993 && eventData.exact != 9007199254740992",
            "eventData.int * 3 == 6 && eventData.double * 3.0 == 6.0",
            "double(eventData.int) * eventData.half == 1.0",
            "eventData.int / 4 == 0 && eventData.int in [1.0, 2.0]",
            "int(eventData.double) == 2 && string(eventData.int) == '2'",
        ] {
            assert_eq!(condition(text, data), Ok(true), "{text}");
        }
        let error = condition("eventData.int * eventData.half > 0.0", data);
        assert!(error.unwrap_err().contains("int and float"));
        let error = condition("eventData.n > 1", r#"{"n": 1e999}"#).unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn texts_and_times_are_read() {
        let data = r#"{"key": "k", "number": 5, "none": null, "at": "2026-05-01T00:00:00+02:00",
            "cc": ["a@x", null, "b@x"], "mixed": ["a", 1]}"#;
        let long = format!(r#"{{"key": "{}"}}"#, "ü".repeat(513));
        let text = |text, data| expression(text).text(&event(data));
        assert_eq!(text("eventData.key", data), Ok(Some("k".to_owned())));
        assert_eq!(
            text("userId + '/' + string(eventData.number)", data),
            Ok(Some("u-1/5".into()))
        );
        for missing in [
            "eventData.no",
            "eventData.none",
            "sessionId",
            "userId + sessionId",
        ] {
            assert_eq!(text(missing, data), Ok(None), "{missing}");
        }
        let error = text("eventData.number", data).unwrap_err().reason;
        assert!(
            error.contains("gives a int; it must give a string; string("),
            "{error}"
        );
        let error = text("eventData.key", &long).unwrap_err().reason;
        assert!(error.contains("more than 1024 bytes"), "{error}");

        let time = |text| expression(text).time(&event(data));
        let due = "2026-04-30T22:00:00Z".parse::<DateTime<Utc>>().unwrap();
        assert_eq!(time("eventData.at"), Ok(Some(due)));
        assert_eq!(
            time("timestamp(eventData.at) - duration('0s')"),
            Ok(Some(due))
        );
        assert_eq!(time("timestamp"), Ok(Some(event(data).timestamp)));
        assert_eq!(time("eventData.none"), Ok(None));
        assert_eq!(time("timestamp(eventData.no)"), Ok(None));
        for (text, reason) in [
            ("eventData.number", "gives a int"),
            ("eventData.key", "a string that is no time"),
            ("'9999-12-31T23:59:59-01:00'", "a string that is no time"),
        ] {
            let error = time(text).unwrap_err().reason;
            assert!(error.contains(reason), "{error}");
        }

        let texts = |text| expression(text).texts(&event(data)).map_err(|e| e.reason);
        assert_eq!(texts("eventData.key"), Ok(vec!["k".to_owned()]));
        let all = vec!["k".to_owned(), "a@x".to_owned(), "b@x".to_owned()];
        assert_eq!(texts("[eventData.key] + eventData.cc"), Ok(all));
        assert_eq!(texts("eventData.no"), Ok(vec![]));
        assert!(
            texts("eventData.mixed")
                .unwrap_err()
                .contains("a list with a int")
        );
        assert!(
            texts("eventData.number")
                .unwrap_err()
                .contains("gives a int")
        );
    }
}

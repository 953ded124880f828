//! Types, enumerated values, numbers and texts.

use super::compare::{Comparison, Pair};
use super::composition::has_reference;
use crate::event::schemas::document;
use serde_json::{Map, Value};

const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "string", "integer", "number",
];

/// The types of the values that a schema takes.
struct Types(Vec<&'static str>);

impl Types {
    fn of(schema: &Map<String, Value>) -> Self {
        let named: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => TYPES.to_vec(),
        };
        let takes =
            |name: &&str| named.contains(name) || (*name == "integer" && named.contains(&"number"));
        Self(TYPES.into_iter().filter(takes).collect())
    }

    fn have(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// A bound of numbers: the number, and whether it lies outside itself.
type Bound = Option<(f64, bool)>;

impl<'a> Comparison<'a> {
    /// Compares the values of an older schema that names them one by one. Whether it does, and they could be
    /// judged.
    pub(super) fn values(&mut self, pair: &Pair<'a>) -> bool {
        let (keyword, values) = match (pair.older.get("const"), pair.older.get("enum")) {
            (Some(value), _) => ("const", vec![value]),
            (None, Some(Value::Array(values))) => ("enum", values.iter().collect()),
            _ => return false,
        };
        let newer = pair.whole.1;
        if has_reference(newer) {
            return false;
        }
        let Ok(validator) = document::validator(newer) else {
            return false;
        };
        let lost = values
            .into_iter()
            .filter(|value| !validator.is_valid(value))
            .count();
        if lost > 0 {
            self.refuse(
                keyword,
                format!("{lost} of the values are not taken any longer"),
            );
        }
        true
    }

    pub(super) fn scalars(&mut self, pair: &Pair<'a>) {
        let (older, newer) = (Types::of(pair.older), Types::of(pair.newer));
        let lost: Vec<&str> = older
            .0
            .iter()
            .copied()
            .filter(|name| !newer.have(name))
            .collect();
        if !lost.is_empty() {
            // Reported once; what its values must satisfy does not matter then.
            return self.refuse(
                "type",
                format!("{} is not taken any longer", lost.join(", ")),
            );
        }
        for keyword in ["enum", "const"] {
            // Of the older schema they were compared one by one, unless that cannot be.
            match pair.both(keyword) {
                (None, Some(_)) => self.refuse(keyword, "other values are not taken any longer"),
                (Some(_), Some(_)) => self.unchanged(pair, keyword),
                _ => {}
            }
        }
        if older.have("integer") {
            self.numbers(pair, older.have("number"));
        }
        if older.have("string") {
            self.at_least(pair, "minLength");
            self.at_most(pair, "maxLength");
            self.unchanged(pair, "pattern");
            for keyword in ["contentEncoding", "contentMediaType"] {
                self.unchanged(pair, keyword);
            }
            if self.asserts_formats() {
                self.unchanged(pair, "format");
            }
        }
    }

    fn numbers(&mut self, pair: &Pair<'a>, has_fractions: bool) {
        let older = lower(pair.older);
        if let Some((least, open)) = lower(pair.newer)
            && !older
                .is_some_and(|(old, was_open)| old > least || (old == least && (was_open || !open)))
        {
            self.refuse(
                "minimum",
                format!("numbers below {least} are not taken any longer"),
            );
        }
        let older = upper(pair.older);
        if let Some((most, open)) = upper(pair.newer)
            && !older
                .is_some_and(|(old, was_open)| old < most || (old == most && (was_open || !open)))
        {
            self.refuse(
                "maximum",
                format!("numbers above {most} are not taken any longer"),
            );
        }
        let (older, newer) = pair.both("multipleOf");
        if let Some(step) = newer.and_then(Value::as_f64) {
            let was = older
                .and_then(Value::as_f64)
                .or((!has_fractions).then_some(1.0));
            if !was.is_some_and(|was| (was / step).fract() == 0.0) {
                self.refuse("multipleOf", format!("only multiples of {step} are taken"));
            }
        }
    }

    /// A count that may only fall.
    pub(super) fn at_least(&mut self, pair: &Pair<'a>, keyword: &str) {
        let (older, newer) = pair.both(keyword);
        let count = |value: Option<&Value>| value.and_then(Value::as_f64).unwrap_or(0.0);
        if count(newer) > count(older) {
            self.refuse(
                keyword,
                format!("is {}, was {}", count(newer), count(older)),
            );
        }
    }

    /// A count that may only rise.
    pub(super) fn at_most(&mut self, pair: &Pair<'a>, keyword: &str) {
        let (older, newer) = pair.both(keyword);
        let count = |value: Option<&Value>| value.and_then(Value::as_f64);
        match (count(older), count(newer)) {
            (Some(old), Some(new)) if new < old => {
                self.refuse(keyword, format!("is {new}, was {old}"));
            }
            (None, Some(new)) => self.refuse(keyword, format!("is {new}, and there was none")),
            _ => {}
        }
    }
}

fn lower(schema: &Map<String, Value>) -> Bound {
    let of = |keyword: &str, open| Some((schema.get(keyword)?.as_f64()?, open));
    match (of("minimum", false), of("exclusiveMinimum", true)) {
        (Some(closed), Some(open)) if closed.0 > open.0 => Some(closed),
        (closed, open) => open.or(closed),
    }
}

fn upper(schema: &Map<String, Value>) -> Bound {
    let of = |keyword: &str, open| Some((schema.get(keyword)?.as_f64()?, open));
    match (of("maximum", false), of("exclusiveMaximum", true)) {
        (Some(closed), Some(open)) if closed.0 < open.0 => Some(closed),
        (closed, open) => open.or(closed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::shown;
    use serde_json::{Value, json};

    #[test]
    fn each_keyword_is_compared() {
        let string = |more: Value| {
            let mut schema = json!({"type": "string"});
            schema
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            schema
        };
        let none: [&str; 0] = [];
        let cases: Vec<(Value, Value, Vec<&str>)> = vec![
            (json!({}), json!({}), none.to_vec()),
            (json!(true), json!({}), none.to_vec()),
            (json!(false), json!({"type": "string"}), none.to_vec()),
            (json!({}), json!(false), vec!["false"]),
            (
                json!({"type": "integer"}),
                json!({"type": "number"}),
                none.to_vec(),
            ),
            (
                json!({"type": "number"}),
                json!({"type": "integer"}),
                vec!["type"],
            ),
            (
                json!({"type": "string"}),
                json!({"type": ["string", "null"]}),
                none.to_vec(),
            ),
            (
                json!({"type": ["string", "null"]}),
                json!({"type": "string"}),
                vec!["type"],
            ),
            (json!({}), json!({"type": "string"}), vec!["type"]),
            (
                json!({"enum": ["a"]}),
                json!({"enum": ["a", "b"]}),
                none.to_vec(),
            ),
            (
                json!({"enum": ["a", "b"]}),
                json!({"enum": ["a"]}),
                vec!["enum"],
            ),
            (
                json!({"const": 1}),
                json!({"type": "integer", "minimum": 1}),
                none.to_vec(),
            ),
            (
                json!({"const": 0}),
                json!({"type": "integer", "minimum": 1}),
                vec!["const"],
            ),
            (string(json!({})), json!({"enum": ["a"]}), vec!["enum"]),
            (json!({"minimum": 1}), json!({"minimum": 0}), none.to_vec()),
            (
                json!({"minimum": 0}),
                json!({"exclusiveMinimum": 0}),
                vec!["minimum"],
            ),
            (
                json!({"exclusiveMaximum": 5}),
                json!({"maximum": 5}),
                none.to_vec(),
            ),
            (json!({}), json!({"maximum": 5}), vec!["maximum"]),
            (string(json!({})), json!({"maximum": 5}), none.to_vec()),
            (
                json!({"multipleOf": 4}),
                json!({"multipleOf": 2}),
                none.to_vec(),
            ),
            (
                json!({"multipleOf": 2}),
                json!({"multipleOf": 4}),
                vec!["multipleOf"],
            ),
            (
                string(json!({"maxLength": 5})),
                string(json!({"maxLength": 9})),
                none.to_vec(),
            ),
            (
                string(json!({"maxLength": 9})),
                string(json!({"maxLength": 5})),
                vec!["maxLength"],
            ),
            (
                string(json!({})),
                string(json!({"minLength": 1})),
                vec!["minLength"],
            ),
            (
                string(json!({"pattern": "a"})),
                string(json!({"pattern": "a"})),
                none.to_vec(),
            ),
            (
                string(json!({"pattern": "a"})),
                string(json!({"pattern": "b"})),
                vec!["pattern?"],
            ),
            (
                string(json!({"pattern": "a"})),
                string(json!({})),
                none.to_vec(),
            ),
            (
                json!({"items": {"type": "integer"}}),
                json!({"items": {"type": "string"}}),
                vec!["/* type"],
            ),
            (
                json!({"type": "array"}),
                json!({"items": {"type": "string"}}),
                vec!["/* type"],
            ),
            (
                json!({"prefixItems": [{}]}),
                json!({"prefixItems": [{}, {}]}),
                vec!["prefixItems?"],
            ),
            (
                json!({"maxItems": 2}),
                json!({"maxItems": 1}),
                vec!["maxItems"],
            ),
            (
                json!({"type": "array"}),
                json!({"uniqueItems": true}),
                vec!["uniqueItems"],
            ),
            (json!({"not": {"type": "null"}}), json!({}), none.to_vec()),
            (json!({}), json!({"not": {"type": "null"}}), vec!["not?"]),
            (
                json!({"title": "a"}),
                json!({"title": "b", "x-owner": "c"}),
                none.to_vec(),
            ),
        ];
        for (older, newer, expected) in cases {
            assert_eq!(shown(&older, &newer, false), expected, "{older} -> {newer}");
        }
    }
}

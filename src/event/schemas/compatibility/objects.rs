//! MemberRules of objects.

use super::compare::{Comparison, Pair};
use serde_json::{Map, Value};
use std::sync::LazyLock;

static OPEN: Value = Value::Bool(true);
static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> Comparison<'a> {
    pub(super) fn objects(&mut self, pair: &Pair<'a>) {
        if !takes(pair.older, "object") {
            return;
        }
        self.required(pair);
        self.properties(pair);
        self.at_least(pair, "minProperties");
        self.at_most(pair, "maxProperties");
        for keyword in [
            "propertyNames",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        ] {
            self.unchanged(pair, keyword);
        }
    }

    fn required(&mut self, pair: &Pair<'a>) {
        let names = |value: Option<&'a Value>| {
            let names = value.and_then(Value::as_array).into_iter().flatten();
            names.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        let (older, newer) = pair.both("required");
        let older = names(older);
        for name in names(newer) {
            if !older.contains(&name) {
                self.at_member(name, |comparison| {
                    comparison.refuse("required", "is required now, and was not");
                });
            }
        }
    }

    fn properties(&mut self, pair: &Pair<'a>) {
        let (older, newer) = (MemberRules::of(pair.older), MemberRules::of(pair.newer));
        for (name, schema) in newer.named {
            match older.named.get(name) {
                Some(old) => self.below(name, old, schema),
                None if !older.patterns.is_empty() => self.at_member(name, |comparison| {
                    comparison.doubt("patternProperties", "a pattern may have matched it");
                }),
                // Open: its payloads may have the member, but producers do not send what they do not name.
                None if *older.others == Value::Bool(true) && !self.strict => {}
                None => self.below(name, older.others, schema),
            }
        }
        let gone = older
            .named
            .iter()
            .filter(|(name, _)| !newer.named.contains_key(*name));
        for (name, schema) in gone {
            if !newer.patterns.is_empty() {
                self.at_member(name, |comparison| {
                    comparison.doubt("patternProperties", "a pattern may match it now");
                });
            } else if *newer.others == Value::Bool(false) {
                self.at_member(name, |comparison| {
                    comparison.refuse("additionalProperties", "is not taken any longer");
                });
            } else {
                self.below(name, schema, newer.others);
            }
        }
        for (pattern, schema) in newer.patterns {
            match older.patterns.get(pattern) {
                Some(old) => self.below(pattern, old, schema),
                None => {
                    self.doubt("patternProperties", "a pattern is new");
                    return;
                }
            }
        }
        let gone = older
            .patterns
            .keys()
            .any(|one| !newer.patterns.contains_key(one));
        if gone && *newer.others != Value::Bool(true) {
            self.doubt("patternProperties", "a pattern is gone");
        }
        match (older.others, newer.others) {
            (Value::Bool(false), _) => {}
            (_, Value::Bool(false)) => {
                self.refuse(
                    "additionalProperties",
                    "members without a name are not taken any longer",
                );
            }
            (old, new) => self.below("*", old, new),
        }
    }

    fn at_member(&mut self, name: &str, report: impl FnOnce(&mut Self)) {
        self.enter(name);
        report(self);
        self.leave();
    }
}

/// What a schema says of members.
struct MemberRules<'a> {
    named: &'a Map<String, Value>,
    patterns: &'a Map<String, Value>,
    others: &'a Value,
}

impl<'a> MemberRules<'a> {
    fn of(schema: &'a Map<String, Value>) -> Self {
        let map = |keyword: &str| {
            let map = schema.get(keyword).and_then(Value::as_object);
            map.unwrap_or(&NONE)
        };
        Self {
            named: map("properties"),
            patterns: map("patternProperties"),
            others: schema.get("additionalProperties").unwrap_or(&OPEN),
        }
    }
}

/// Whether a schema takes values of this type.
pub(super) fn takes(schema: &Map<String, Value>, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(names)) => names.iter().any(|one| one == name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::shown;
    use serde_json::{Value, json};

    fn object(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    #[test]
    fn objects_are_compared_by_their_members() {
        let cases: Vec<(Value, Value, Vec<&str>, Vec<&str>)> = vec![
            // Added, optional: what people expect to be compatible, and JSON Schema by itself does not say.
            (
                object(json!({})),
                object(json!({"a": {"type": "string"}})),
                vec![],
                vec!["/a type"],
            ),
            (
                json!({"type": "object", "additionalProperties": false}),
                object(json!({"a": {"type": "string"}})),
                vec![],
                vec![],
            ),
            (
                object(json!({"a": {"type": "string"}})),
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
                vec!["/a required"],
                vec!["/a required"],
            ),
            (
                object(json!({"a": {"type": "string"}})),
                object(json!({})),
                vec![],
                vec![],
            ),
            (
                object(json!({"a": {"type": "string"}})),
                json!({"type": "object", "additionalProperties": false}),
                vec!["/a additionalProperties", "additionalProperties"],
                vec!["/a additionalProperties", "additionalProperties"],
            ),
            (
                object(json!({"a": {"properties": {"b": {"type": "integer"}}}})),
                object(json!({"a": {"properties": {"b": {"type": "string"}}}})),
                vec!["/a/b type"],
                vec!["/a/b type"],
            ),
            (
                json!({"additionalProperties": {"type": "integer"}}),
                json!({"properties": {"a": {"type": "number"}}, "additionalProperties": {"type": "integer"}}),
                vec![],
                vec![],
            ),
            (
                json!({"patternProperties": {"^x": {"type": "integer"}}}),
                json!({"patternProperties": {"^y": {"type": "integer"}}}),
                vec!["patternProperties?"],
                vec!["patternProperties?"],
            ),
            (
                json!({"required": ["a"], "maxProperties": 3}),
                json!({"maxProperties": 2}),
                vec!["maxProperties"],
                vec!["maxProperties"],
            ),
        ];
        for (older, newer, lenient, strict) in cases {
            assert_eq!(shown(&older, &newer, false), lenient, "{older} -> {newer}");
            assert_eq!(
                shown(&older, &newer, true),
                strict,
                "strict: {older} -> {newer}"
            );
        }
    }
}

//! MemberRules of objects.

use super::compare::{Comparison, Pair};
use super::composition::is_composed;
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
                // A schema beside `properties` may have taken it with any value.
                None if older.is_shared
                    && (self.strict || mentions(self.older, name))
                    && !self.covers(&OPEN, schema) =>
                {
                    self.at_member(name, |comparison| {
                        comparison.doubt(
                            older.keyword,
                            "another part of the older schema may describe it",
                        );
                    });
                }
                // Open: its payloads may have the member, but producers do not send what they do not name.
                None if *older.others == Value::Bool(true) && !self.strict => {}
                None => self.below(name, older.others, schema),
            }
        }
        // A member that the older schema never takes is not lost.
        let gone = older.named.iter().filter(|(name, schema)| {
            !newer.named.contains_key(*name) && **schema != Value::Bool(false)
        });
        for (name, schema) in gone {
            if !newer.patterns.is_empty() {
                self.at_member(name, |comparison| {
                    comparison.doubt("patternProperties", "a pattern may match it now");
                });
            } else if newer.is_shared {
                if !self.covers(schema, newer.others) {
                    self.at_member(name, |comparison| {
                        comparison.doubt(
                            newer.keyword,
                            "it is taken only if another part of the schema describes it",
                        );
                    });
                }
            } else if *newer.others == Value::Bool(false) {
                self.at_member(name, |comparison| {
                    comparison.refuse(newer.keyword, "is not taken any longer");
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
        self.others(pair, &older, &newer);
    }

    /// Members that neither a name nor a pattern describes.
    fn others(&mut self, pair: &Pair<'a>, older: &MemberRules<'a>, newer: &MemberRules<'a>) {
        let is_closed = !older.is_shared && *older.others == Value::Bool(false);
        if is_closed || *newer.others == Value::Bool(true) {
            return;
        }
        if older.is_shared && !(newer.is_shared && self.evaluates_same(pair)) {
            return self.doubt(
                newer.keyword,
                "the members that other parts of the older schema describe may not be taken any longer",
            );
        }
        if newer.is_shared {
            if !self.covers(older.others, newer.others) {
                self.doubt(
                    newer.keyword,
                    "members without a name are taken only if another part of the schema describes them",
                );
            }
        } else if *newer.others == Value::Bool(false) {
            self.refuse(
                newer.keyword,
                "members without a name are not taken any longer",
            );
        } else {
            self.below("*", older.others, newer.others);
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
    /// What holds for the others, and the keyword that says so: an explicit `additionalProperties` leaves none to
    /// `unevaluatedProperties`, an absent one all.
    others: &'a Value,
    keyword: &'static str,
    /// `others` does not hold for members that schemas beside `properties` describe.
    is_shared: bool,
}

impl<'a> MemberRules<'a> {
    fn of(schema: &'a Map<String, Value>) -> Self {
        let map = |keyword: &str| {
            let map = schema.get(keyword).and_then(Value::as_object);
            map.unwrap_or(&NONE)
        };
        let said = ["additionalProperties", "unevaluatedProperties"]
            .into_iter()
            .find_map(|keyword| Some((keyword, schema.get(keyword)?)));
        let (keyword, others) = said.unwrap_or(("additionalProperties", &OPEN));
        Self {
            named: map("properties"),
            patterns: map("patternProperties"),
            others,
            keyword,
            is_shared: keyword == "unevaluatedProperties"
                && *others != Value::Bool(true)
                && is_composed(schema),
        }
    }
}

/// Whether a member has this name anywhere in a document, or may have it by a pattern.
fn mentions(document: &Value, name: &str) -> bool {
    match document {
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| key == name || key == "patternProperties" || mentions(value, name)),
        Value::Array(items) => items.iter().any(|item| mentions(item, name)),
        _ => false,
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

    /// Both modes find the same.
    fn assert_found(older: &Value, newer: &Value, expected: &[&str]) {
        for strict in [false, true] {
            assert_eq!(
                shown(older, newer, strict),
                expected,
                "{older} -> {newer}, strict: {strict}"
            );
        }
    }

    #[test]
    fn what_additional_properties_leave_is_for_unevaluated_properties() {
        let a = json!({"a": {}});
        let closed = json!({"properties": a, "unevaluatedProperties": false});
        let with = |keyword: &str, value: Value| {
            let mut schema = closed.clone();
            schema[keyword] = value;
            schema
        };
        let open = with("additionalProperties", json!(true));
        let numbers = json!({"properties": a, "unevaluatedProperties": {"type": "number"}});
        let two = json!({"properties": {"a": {}, "b": {"type": "string"}}, "unevaluatedProperties": false});
        for (older, newer, expected) in [
            (&open, &closed, &["unevaluatedProperties"] as &[&str]),
            (&closed, &open, &[]),
            (&open, &open, &[]),
            (&closed, &closed, &[]),
            (&json!({"properties": a}), &open, &[]),
            (&numbers, &closed, &["unevaluatedProperties"]),
            (&closed, &numbers, &[]),
            (&open, &numbers, &["/* type"]),
            (&closed, &two, &[]),
            (&two, &closed, &["/b unevaluatedProperties"]),
            (&numbers, &two, &["/b type", "unevaluatedProperties"]),
            // The steps of an upcast have removed it.
            (
                &json!({"properties": {"a": {}, "b": false}, "unevaluatedProperties": false}),
                &closed,
                &[],
            ),
            (
                &with("patternProperties", json!({"^x": {}})),
                &closed,
                &["patternProperties?"],
            ),
        ] {
            assert_found(older, newer, expected);
        }
    }

    #[test]
    fn unevaluated_properties_depend_on_the_schemas_beside_them() {
        let composed = |parts: Value| json!({"allOf": parts, "unevaluatedProperties": false});
        let a = composed(json!([{"properties": {"a": {}}}]));
        let two = composed(json!([{"properties": {"a": {}, "b": {}}}]));
        let none = json!({"unevaluatedProperties": false});
        let by_name = |kind: &str| {
            json!({"allOf": [{"$ref": "#/$defs/base"}], "unevaluatedProperties": false,
            "$defs": {"base": {"properties": {kind: {}}}}})
        };
        let beside = |kind: &str| {
            json!({"$ref": "#/$defs/base", "unevaluatedProperties": false,
            "$defs": {"base": {"properties": {kind: {}}}}})
        };
        let within = |kind: &str| {
            json!({"allOf": [{"$ref": "#/properties/own"}], "unevaluatedProperties": false,
            "properties": {"own": {"properties": {kind: {}}}}})
        };
        let dynamic = |kind: &str| {
            json!({"$dynamicRef": "#base", "unevaluatedProperties": false,
            "$defs": {"base": {"$dynamicAnchor": "base", "properties": {kind: {}}}}})
        };
        let typed = json!({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": false,
            "properties": {"a": {"type": "string"}}});
        for (older, newer, expected) in [
            (&a, &a, &[] as &[&str]),
            (&two, &a, &["unevaluatedProperties?"]),
            (&a, &none, &["unevaluatedProperties?"]),
            (&none, &a, &[]),
            (&by_name("a"), &by_name("b"), &["unevaluatedProperties?"]),
            (&by_name("a"), &by_name("a"), &[]),
            (&beside("a"), &beside("b"), &["unevaluatedProperties?"]),
            (&beside("a"), &beside("a"), &[]),
            // What it leads to lies outside of the definitions.
            (&within("a"), &within("b"), &["unevaluatedProperties?"]),
            (&dynamic("a"), &dynamic("b"), &["unevaluatedProperties?"]),
            (
                &json!({"additionalProperties": true}),
                &a,
                &["unevaluatedProperties?"],
            ),
            (
                &json!({"properties": {"b": {}}, "unevaluatedProperties": false}),
                &a,
                &["/b unevaluatedProperties?"],
            ),
        ] {
            assert_found(older, newer, expected);
        }
        // A part of the older schema takes any value of it.
        assert_found(&a, &typed, &["/a unevaluatedProperties?"]);
        // A new member that no part describes.
        let more = json!({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": false,
            "properties": {"c": {"type": "string"}}});
        assert_eq!(shown(&a, &more, false), [] as [&str; 0]);
    }
}

//! Composition: `allOf`, `anyOf` and their like, and references.

use super::compare::{Comparison, Pair};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

impl<'a> Comparison<'a> {
    /// Whether a part of the older schema already shows that the newer one takes everything.
    pub(super) fn branches_cover(&mut self, pair: &Pair<'a>) -> bool {
        let newer = pair.whole.1;
        for keyword in ["anyOf", "oneOf"] {
            let branches = list(pair.older, keyword);
            if !branches.is_empty() && branches.iter().all(|one| self.covers(one, newer)) {
                return true;
            }
        }
        let mut parts = parts(self.older, pair.older).into_iter();
        parts.any(|part| self.covers(part, newer))
    }

    /// `allOf`, and a `$ref` beside other keywords.
    pub(super) fn all_of(&mut self, pair: &Pair<'a>) {
        let older = parts(self.older, pair.older);
        for part in parts(self.newer, pair.newer) {
            if older.is_empty() {
                self.compare(pair.whole.0, part);
            } else if !older.iter().any(|one| self.covers(one, part))
                && !self.covers(pair.whole.0, part)
            {
                self.doubt(
                    "allOf",
                    "a part of it has no counterpart in the older schema",
                );
            }
        }
    }

    pub(super) fn any_of(&mut self, pair: &Pair<'a>) {
        let (older, newer) = (list(pair.older, "anyOf"), list(pair.newer, "anyOf"));
        if newer.is_empty() || newer.iter().any(|one| self.covers(pair.whole.0, one)) {
            return;
        }
        let covered = |branch: &'a Value| newer.iter().any(|one| self.covers(branch, one));
        if older.is_empty() || !older.iter().all(covered) {
            self.doubt(
                "anyOf",
                "not every payload is seen to match one of its branches",
            );
        }
    }

    /// A keyword of which only the same is seen to be compatible.
    pub(super) fn unchanged(&mut self, pair: &Pair<'a>, keyword: &str) {
        let same = match pair.both(keyword) {
            (_, None) => true,
            (Some(older), Some(newer)) => self.is_same(older, newer),
            (None, Some(_)) => false,
        };
        if !same {
            self.doubt(keyword, format!("{keyword} is new or has changed"));
        }
    }

    /// Whether both have a keyword with the same value, or neither has it.
    pub(super) fn is_kept(&self, pair: &Pair<'a>, keyword: &str) -> bool {
        match pair.both(keyword) {
            (None, None) => true,
            (Some(older), Some(newer)) => self.is_same(older, newer),
            _ => false,
        }
    }

    /// Whether the schemas beside the keywords of both evaluate the same members and items of each value.
    pub(super) fn evaluates_same(&self, pair: &Pair<'a>) -> bool {
        if self.older == self.newer {
            return true;
        }
        let is_kept = |keyword: &&str| self.is_kept(pair, keyword);
        if !IN_PLACE.iter().all(is_kept) {
            return false;
        }
        let refers = REFERENCES.iter().any(|name| pair.newer.contains_key(*name));
        let mut parts = IN_PLACE
            .iter()
            .filter_map(|name| Some((*name, pair.newer.get(*name)?)));
        if !refers && !parts.clone().any(|(_, part)| has_reference(part)) {
            return true;
        }
        let mut definitions = DEFINITIONS.iter().filter_map(|name| self.newer.get(*name));
        self.has_same_definitions()
            && !parts.any(|(name, part)| leads_elsewhere(name, part))
            && !definitions.any(refers_elsewhere)
    }

    /// Whether two parts of the documents are the same, what they refer to included.
    fn is_same(&self, older: &Value, newer: &Value) -> bool {
        older == newer && (!has_reference(older) || self.has_same_definitions())
    }

    fn has_same_definitions(&self) -> bool {
        DEFINITIONS
            .iter()
            .all(|name| self.older.get(name) == self.newer.get(name))
    }
}

/// Keywords whose schemas describe the same value, and so may evaluate its members and items.
const IN_PLACE: [&str; 11] = [
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependencies",
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
];

const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Whether other schemas describe the value beside the keywords of this one.
pub(super) fn is_composed(schema: &Map<String, Value>) -> bool {
    IN_PLACE.iter().any(|keyword| schema.contains_key(*keyword))
}

/// The schemas in a list of a keyword.
fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    let list = schema.get(keyword).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The schemas that hold besides the keywords of a schema.
fn parts<'a>(root: &'a Value, schema: &'a Map<String, Value>) -> Vec<&'a Value> {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let mut parts: Vec<&Value> = list(schema, "allOf").iter().collect();
    parts.extend(reference.and_then(|reference| target(root, reference)));
    parts
}

/// The reference of a schema that says nothing else about values.
pub(super) fn alone(schema: &Value) -> Option<&str> {
    const ANNOTATIONS: [&str; 14] = [
        "$ref",
        "$schema",
        "$id",
        "$anchor",
        "$defs",
        "definitions",
        "$comment",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
    ];
    let members = schema.as_object()?;
    let silent = members
        .keys()
        .all(|name| ANNOTATIONS.contains(&name.as_str()));
    members.get("$ref")?.as_str().filter(|_| silent)
}

/// What a reference leads to; `None` for one by a name.
pub(super) fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix('#')?;
    let pointer = percent_decode_str(pointer).decode_utf8().ok()?;
    root.pointer(&pointer)
}

/// Whether a part of a schema depends on another place.
pub(super) fn has_reference(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            REFERENCES.iter().any(|name| members.contains_key(*name))
                || members.values().any(has_reference)
        }
        Value::Array(items) => items.iter().any(has_reference),
        _ => false,
    }
}

/// Whether a part of a schema has a reference to another place than the definitions.
fn refers_elsewhere(value: &Value) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| leads_elsewhere(name, value)),
        Value::Array(items) => items.iter().any(refers_elsewhere),
        _ => false,
    }
}

fn leads_elsewhere(keyword: &str, value: &Value) -> bool {
    let is_within = |text: &str| {
        let mut places = ["#/$defs/", "#/definitions/"].into_iter();
        places.any(|place| text.starts_with(place))
    };
    match keyword {
        "$ref" => !value.as_str().is_some_and(is_within),
        "$dynamicRef" | "$recursiveRef" => true,
        _ => refers_elsewhere(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::shown;
    use serde_json::json;

    #[test]
    fn composition_is_judged_where_it_can_be() {
        let text = json!({"type": "string"});
        let number = json!({"type": "number"});
        let none: Vec<String> = Vec::new();
        assert_eq!(shown(&text, &json!({"anyOf": [number, text]}), false), none);
        assert_eq!(
            shown(
                &json!({"anyOf": [number, text]}),
                &json!({"type": ["string", "number"]}),
                false
            ),
            none
        );
        assert_eq!(
            shown(
                &json!({"anyOf": [number, text]}),
                &json!({"anyOf": [text, number, {"type": "null"}]}),
                false
            ),
            none
        );
        assert_eq!(
            shown(
                &json!({"anyOf": [number, text]}),
                &json!({"anyOf": [number]}),
                false
            ),
            ["anyOf?"]
        );
        assert_eq!(
            shown(
                &json!({"oneOf": [number]}),
                &json!({"oneOf": [number, text]}),
                false
            ),
            ["oneOf?"]
        );
        assert_eq!(
            shown(&text, &json!({"allOf": [{"maxLength": 3}]}), false),
            ["maxLength"]
        );
        assert_eq!(shown(&json!({"allOf": [text]}), &text, false), none);
    }
}

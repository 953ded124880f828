//! The comparison of two schemas: composition and references; the other keywords have files of their own.

use super::Incompatibility;
use super::composition::{alone, target};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Pairs of subschemas that one comparison looks at.
const MAX_PAIRS: usize = 20_000;
/// Subschemas within each other.
const MAX_NESTING: usize = 100;

/// A comparison of two documents under way.
pub(super) struct Comparison<'a> {
    pub(super) older: &'a Value,
    pub(super) newer: &'a Value,
    /// A payload of an open object may have members that its schema does not name.
    pub(super) strict: bool,
    /// Pairs under way, so that recursive schemas end.
    under_way: HashSet<(*const Value, *const Value)>,
    pairs: usize,
    found: Vec<Incompatibility>,
    pointer: Vec<String>,
}

/// Two subschemas that are compared, with their members.
pub(super) struct Pair<'a> {
    pub(super) older: &'a Map<String, Value>,
    pub(super) newer: &'a Map<String, Value>,
    /// Both as they stand.
    pub(super) whole: (&'a Value, &'a Value),
}

impl<'a> Pair<'a> {
    /// A keyword of both; absent ones are `None`.
    pub(super) fn both(&self, keyword: &str) -> (Option<&'a Value>, Option<&'a Value>) {
        (self.older.get(keyword), self.newer.get(keyword))
    }
}

impl<'a> Comparison<'a> {
    /// What is valid for `older` and not, or perhaps not, for `newer`.
    pub(super) fn run(older: &'a Value, newer: &'a Value, strict: bool) -> Vec<Incompatibility> {
        let mut comparison = Self {
            older,
            newer,
            strict,
            under_way: HashSet::new(),
            pairs: 0,
            found: Vec::new(),
            pointer: Vec::new(),
        };
        comparison.compare(older, newer);
        comparison.found
    }

    /// Certain: a payload is known that only the older schema takes.
    pub(super) fn refuse(&mut self, rule: &str, reason: impl Into<String>) {
        self.report(rule, reason.into(), true);
    }

    /// Not judged.
    pub(super) fn doubt(&mut self, rule: &str, reason: impl Into<String>) {
        self.report(rule, format!("cannot be judged: {}", reason.into()), false);
    }

    fn report(&mut self, rule: &str, reason: String, is_certain: bool) {
        let segments = self
            .pointer
            .iter()
            .map(|one| one.replace('~', "~0").replace('/', "~1"));
        self.found.push(Incompatibility {
            pointer: segments.map(|one| format!("/{one}")).collect(),
            rule: rule.to_owned(),
            reason,
            is_certain,
        });
    }

    pub(super) fn enter(&mut self, segment: &str) {
        self.pointer.push(segment.to_owned());
    }

    pub(super) fn leave(&mut self) {
        self.pointer.pop();
    }

    /// Compares the subschemas of a member or item.
    pub(super) fn below(&mut self, segment: &str, older: &'a Value, newer: &'a Value) {
        self.enter(segment);
        self.compare(older, newer);
        self.leave();
    }

    /// Whether `format` is more than an annotation in the newer document.
    pub(super) fn asserts_formats(&self) -> bool {
        let draft = self.newer.get("$schema").and_then(Value::as_str);
        draft.is_some_and(|draft| draft.contains("json-schema.org/draft-0"))
    }

    /// Whether everything valid for `older` is valid for `newer`, without a report.
    pub(super) fn covers(&mut self, older: &'a Value, newer: &'a Value) -> bool {
        let before = self.found.len();
        self.compare(older, newer);
        let covers = self.found.len() == before;
        self.found.truncate(before);
        covers
    }

    pub(super) fn compare(&mut self, older: &'a Value, newer: &'a Value) {
        self.pairs += 1;
        if self.pairs > MAX_PAIRS || self.under_way.len() >= MAX_NESTING {
            return self.doubt(
                "schema",
                "the schemas are too large or too deeply nested to be compared",
            );
        }
        let key = (std::ptr::from_ref(older), std::ptr::from_ref(newer));
        // A pair that leads back to itself holds if the rest does.
        if !self.under_way.insert(key) {
            return;
        }
        self.compare_once(older, newer);
        self.under_way.remove(&key);
    }

    fn compare_once(&mut self, older: &'a Value, newer: &'a Value) {
        static OPEN: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        match (older, newer) {
            (Value::Bool(false), _) | (_, Value::Bool(true)) => return,
            (_, Value::Bool(false)) => {
                return self.refuse("false", "no value is taken here any longer");
            }
            _ => {}
        }
        if let Some(reference) = alone(newer) {
            return match target(self.newer, reference) {
                Some(target) => self.compare(older, target),
                None => self.doubt("$ref", format!("{reference} is a named place")),
            };
        }
        if let Some(reference) = alone(older) {
            return match target(self.older, reference) {
                Some(target) => self.compare(target, newer),
                None => self.doubt("$ref", format!("{reference} is a named place")),
            };
        }
        let members = |schema: &'a Value| schema.as_object().unwrap_or(&OPEN);
        let pair = Pair {
            older: members(older),
            newer: members(newer),
            whole: (older, newer),
        };
        if self.branches_cover(&pair) {
            return;
        }
        self.all_of(&pair);
        self.any_of(&pair);
        for keyword in ["oneOf", "not", "if", "then", "else"] {
            self.unchanged(&pair, keyword);
        }
        // The values of an enumeration are all there is to look at.
        if !self.values(&pair) {
            self.scalars(&pair);
            self.objects(&pair);
            self.arrays(&pair);
        }
    }
}

/// The places and rules that speak against compatibility; a question mark for what is not judged.
#[cfg(test)]
pub(super) fn shown(older: &Value, newer: &Value, strict: bool) -> Vec<String> {
    let found = Comparison::run(older, newer, strict);
    let shown = |one: &Incompatibility| {
        let doubt = if one.is_certain { "" } else { "?" };
        format!("{} {}{doubt}", one.pointer, one.rule)
            .trim()
            .to_owned()
    };
    found.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_followed_and_recursion_ends() {
        let node = |value: &str| {
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
                "value": {"type": value}, "next": {"$ref": "#/$defs/node"}}}}})
        };
        assert!(shown(&node("integer"), &node("number"), true).is_empty());
        assert_eq!(
            shown(&node("number"), &node("integer"), false),
            ["/value type"]
        );
    }
}

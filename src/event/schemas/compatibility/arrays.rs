//! Items of arrays.

use super::compare::{Comparison, Pair};
use super::composition::is_composed;
use super::objects::takes;
use serde_json::{Map, Value};

static OPEN: Value = Value::Bool(true);

impl<'a> Comparison<'a> {
    pub(super) fn arrays(&mut self, pair: &Pair<'a>) {
        if !takes(pair.older, "array") {
            return;
        }
        self.at_least(pair, "minItems");
        self.at_most(pair, "maxItems");
        let (older, newer) = pair.both("uniqueItems");
        if newer == Some(&Value::Bool(true)) && older != Some(&Value::Bool(true)) {
            self.refuse(
                "uniqueItems",
                "items that are the same are not taken any longer",
            );
        }
        for keyword in ["contains", "minContains", "maxContains"] {
            self.unchanged(pair, keyword);
        }
        if let Some(newer) = unevaluated(pair.newer) {
            return self.unevaluated_items(pair, newer);
        }
        let has_places = |value: Option<&Value>| value.is_some_and(Value::is_array);
        let by_place = ["prefixItems", "items"].into_iter().any(|keyword| {
            let (older, newer) = pair.both(keyword);
            has_places(older) || has_places(newer)
        });
        if by_place {
            // Which schema holds for the items behind depends on the number of those before.
            for keyword in ["prefixItems", "items", "additionalItems"] {
                self.unchanged(pair, keyword);
            }
            let is_open = |schema: &Value| schema.is_array() || *schema == OPEN;
            let holds_for_all = pair.newer.get("items").is_some_and(|items| !is_open(items));
            if holds_for_all && !self.is_kept(pair, "prefixItems") {
                self.doubt(
                    "items",
                    "items holds for the places that prefixItems had, too",
                );
            }
            return;
        }
        if let Some(newer) = pair.newer.get("items") {
            let older = pair.older.get("items").or(rest(pair.older));
            self.below("*", older.unwrap_or(&OPEN), newer);
        }
    }

    /// `newer` is what holds for the items that no other keyword of the newer schema evaluates.
    fn unevaluated_items(&mut self, pair: &Pair<'a>, newer: &'a Value) {
        let keywords = [
            "unevaluatedItems",
            "prefixItems",
            "items",
            "additionalItems",
            "contains",
        ];
        let is_same = keywords.iter().all(|keyword| self.is_kept(pair, keyword));
        if is_same && self.evaluates_same(pair) {
            return;
        }
        let all = pair.older.get("items").filter(|items| !items.is_array());
        let is_by_place = pair.older.contains_key("prefixItems");
        let older = all.filter(|_| !is_by_place).or(rest(pair.older));
        let has_places = ["prefixItems", "items"]
            .iter()
            .any(|keyword| pair.newer.contains_key(*keyword));
        match older.filter(|_| !has_places) {
            Some(older) if self.covers(older, newer) => {}
            Some(older) if rest(pair.newer).is_some() => self.below("*", older, newer),
            None if !has_items(pair.older) && rest(pair.newer).is_some() => {
                self.below("*", &OPEN, newer);
            }
            _ => self.doubt(
                "unevaluatedItems",
                "which items it is for depends on the keywords beside it, and they have changed",
            ),
        }
    }
}

/// `unevaluatedItems`, unless another keyword leaves no items to it.
fn unevaluated(schema: &Map<String, Value>) -> Option<&Value> {
    let evaluates_all = match schema.get("items") {
        Some(Value::Array(_)) => schema.contains_key("additionalItems"),
        items => items.is_some(),
    };
    let unevaluated = schema.get("unevaluatedItems")?;
    (!evaluates_all && *unevaluated != OPEN).then_some(unevaluated)
}

/// `unevaluatedItems` where it is for all items.
fn rest(schema: &Map<String, Value>) -> Option<&Value> {
    unevaluated(schema).filter(|_| !has_items(schema))
}

/// Whether keywords evaluate some of the items.
fn has_items(schema: &Map<String, Value>) -> bool {
    let mut keywords = ["prefixItems", "items", "contains"].into_iter();
    keywords.any(|keyword| schema.contains_key(keyword)) || is_composed(schema)
}

#[cfg(test)]
mod tests {
    use super::super::compare::shown;
    use serde_json::{Value, json};

    #[test]
    fn what_items_leave_is_for_unevaluated_items() {
        let none = json!({"unevaluatedItems": false});
        let all = json!({"items": {}, "unevaluatedItems": false});
        let places = json!({"prefixItems": [{}, {}], "unevaluatedItems": false});
        let typed = json!({"prefixItems": [{"type": "string"}], "unevaluatedItems": {}});
        let numbers = json!({"unevaluatedItems": {"type": "number"}});
        let composed = json!({"allOf": [{"prefixItems": [{}]}], "unevaluatedItems": false});
        let contains = json!({"contains": {"type": "number"}, "unevaluatedItems": false});
        let cases: Vec<(&Value, &Value, &[&str])> = vec![
            (&all, &none, &["/* false"]),
            (&none, &all, &[]),
            (&all, &all, &[]),
            (&none, &none, &[]),
            (&places, &places, &[]),
            (&places, &none, &["unevaluatedItems?"]),
            (&all, &places, &["unevaluatedItems?"]),
            (&all, &typed, &["unevaluatedItems?"]),
            (&numbers, &none, &["/* false"]),
            (&none, &numbers, &[]),
            (&composed, &composed, &[]),
            (&composed, &none, &["unevaluatedItems?"]),
            (&contains, &contains, &[]),
            (&contains, &none, &["unevaluatedItems?"]),
        ];
        for (older, newer, expected) in cases {
            assert_eq!(shown(older, newer, false), expected, "{older} -> {newer}");
        }
    }

    #[test]
    fn without_places_items_is_for_the_first_ones_too() {
        let older = json!({"prefixItems": [{}], "items": {"type": "string"}});
        let newer = json!({"items": {"type": "string"}});
        assert_eq!(shown(&older, &newer, false), ["items?"]);
        assert_eq!(shown(&older, &json!({}), false), [] as [&str; 0]);
    }
}

//! Items of arrays.

use super::compare::{Comparison, Pair};
use super::objects::takes;
use serde_json::Value;

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
        for keyword in ["contains", "minContains", "maxContains", "unevaluatedItems"] {
            self.unchanged(pair, keyword);
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
            return;
        }
        let (older, newer) = pair.both("items");
        if let Some(newer) = newer {
            self.below("*", older.unwrap_or(&OPEN), newer);
        }
    }
}

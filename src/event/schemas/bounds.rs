//! How much work a schema can make, from its graph: what would take too long or too much stack is refused,
//! as a schema or as a payload, before a check begins.
//!
//! A subschema that applies two others, each of which applies two others, doubles the work with each step;
//! one that applies itself twice to a member doubles it with each level of the payload. So the work is
//! summed up for a payload of each depth, along the way through the payload that costs most.

use super::graph::Graph;
use serde_json::Value;

/// Most levels of a payload that are looked at: as many as `ingest.max_depth` allows.
const MAX_DEPTH: usize = 512;
/// Levels that every schema must be able to check.
const LEAST_DEPTH: usize = 8;
/// Most subschemas applied along one way through a payload.
const MAX_STEPS: u64 = 1_000_000;
/// Most subschemas applied to a payload as a whole; each takes some ten nanoseconds.
const MAX_WORK: u64 = 100_000_000;
/// Most subschemas applied within each other: each takes stack.
const MAX_NESTING: u64 = 600;

/// What a check can cost, by the depth of the payload.
#[derive(Debug)]
pub(super) struct WorkBounds {
    /// Work for each value of a payload that is so deep. Deeper payloads cost as much as the last, unless
    /// `ends` is set.
    steps: Vec<u64>,
    /// Deeper payloads cost too much.
    ends: bool,
}

impl WorkBounds {
    /// # Errors
    /// Why no payload can be checked.
    pub(super) fn of(graph: &Graph) -> Result<Self, String> {
        let order = order(graph)?;
        let mut costs = vec![Cost::default(); graph.nodes.len()];
        let mut steps = Vec::new();
        for depth in 0..=MAX_DEPTH {
            let before = (depth > 0).then(|| costs.clone());
            for &place in &order {
                let cost = cost(graph, place, &costs, before.as_deref());
                if let Some(entry) = costs.get_mut(place) {
                    *entry = cost;
                }
            }
            let root = costs.first().copied().unwrap_or_default();
            if root.steps > MAX_STEPS || root.nesting > MAX_NESTING {
                return match depth {
                    0..LEAST_DEPTH => Err(format!(
                        "applies too many subschemas to one value: checking a payload of {depth} levels could \
                         take more than {MAX_STEPS} steps, or {MAX_NESTING} within each other"
                    )),
                    _ => Ok(Self { steps, ends: true }),
                };
            }
            steps.push(root.steps);
            if before.as_ref() == Some(&costs) {
                break;
            }
        }
        Ok(Self { steps, ends: false })
    }

    /// Whether a payload may be checked.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let (depth, values) = measure(value);
        let steps = match self.steps.get(depth) {
            Some(steps) => *steps,
            None if self.ends => {
                let most = self.steps.len().saturating_sub(1);
                return Err(format!(
                    "has {depth} levels, and with this schema at most {most} can be checked in time"
                ));
            }
            None => self.steps.last().copied().unwrap_or_default(),
        };
        if steps.saturating_mul(values) > MAX_WORK {
            return Err(format!(
                "has {values} values, too many to be checked in time with this schema"
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    /// Subschemas applied along the way that costs most.
    steps: u64,
    /// Subschemas applied within each other.
    nesting: u64,
}

/// The cost of a node, where `costs` has those that it applies to the same value, and `before` those of a
/// payload with one level less.
fn cost(graph: &Graph, place: usize, costs: &[Cost], before: Option<&[Cost]>) -> Cost {
    let Some(node) = graph.nodes.get(place) else {
        return Cost::default();
    };
    let of = |costs: &[Cost], place: &usize| costs.get(*place).copied().unwrap_or_default();
    let (mut steps, mut nesting) = (0_u64, 0);
    for same in &node.same {
        let cost = of(costs, same);
        steps = steps.saturating_add(cost.steps);
        nesting = nesting.max(cost.nesting);
    }
    if node.repeats {
        steps = steps.saturating_mul(2);
    }
    if let Some(before) = before {
        let one = node.one.iter().map(|place| of(before, place));
        let most = one.clone().map(|cost| cost.steps).max().unwrap_or(0);
        steps = steps.saturating_add(most);
        nesting = one.map(|cost| cost.nesting).fold(nesting, u64::max);
        for any in &node.any {
            let cost = of(before, any);
            steps = steps.saturating_add(cost.steps);
            nesting = nesting.max(cost.nesting);
        }
    }
    Cost {
        steps: steps.saturating_add(node.weight),
        nesting: nesting.saturating_add(1),
    }
}

/// The nodes in an order in which each stands behind those that it applies to the same value.
fn order(graph: &Graph) -> Result<Vec<usize>, String> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Open,
        Done,
    }
    let mut seen = vec![Seen::No; graph.nodes.len()];
    let mut order = Vec::with_capacity(graph.nodes.len());
    for start in 0..graph.nodes.len() {
        let mut stack = vec![(start, 0)];
        while let Some((place, next)) = stack.pop() {
            let (Some(node), Some(state)) = (graph.nodes.get(place), seen.get_mut(place)) else {
                continue;
            };
            if next == 0 {
                match *state {
                    Seen::Done => continue,
                    Seen::Open => {
                        return Err(
                            "applies a subschema to the same value again and again: a $ref leads back to where it \
                             stands, through no member or item"
                                .to_owned(),
                        );
                    }
                    Seen::No => *state = Seen::Open,
                }
            }
            match node.same.get(next) {
                Some(&below) => {
                    stack.push((place, next + 1));
                    stack.push((below, 0));
                }
                None => {
                    *state = Seen::Done;
                    order.push(place);
                }
            }
        }
    }
    Ok(order)
}

/// Levels below the value, and the number of values.
fn measure(value: &Value) -> (usize, u64) {
    let (mut deepest, mut values) = (0, 0);
    let mut left = vec![(value, 0)];
    while let Some((value, depth)) = left.pop() {
        values += 1;
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(members) => {
                left.extend(members.values().map(|member| (member, depth + 1)));
            }
            _ => {}
        }
    }
    (deepest, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bounds(schema: &Value) -> Result<WorkBounds, String> {
        WorkBounds::of(&Graph::of(schema).unwrap())
    }

    #[test]
    fn a_schema_that_applies_itself_to_the_same_value_is_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        ] {
            assert!(
                bounds(&schema).unwrap_err().contains("again and again"),
                "{schema}"
            );
        }
    }

    #[test]
    fn trees_are_checked_to_any_depth() {
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        let bounds = bounds(&tree).unwrap();
        assert!(
            !bounds.ends || bounds.steps.len() > 150,
            "{}",
            bounds.steps.len()
        );
        let mut value = json!({});
        for _ in 0..100 {
            value = json!({"left": value});
        }
        bounds.check(&value).unwrap();
    }

    #[test]
    fn work_that_doubles_is_bounded() {
        let mut defs = serde_json::Map::new();
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"allOf": [next, next]}));
        }
        defs.insert("d40".to_owned(), json!({"type": "object"}));
        let laughs = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(bounds(&laughs).unwrap_err().contains("too many subschemas"));

        // Fine as long as payloads are flat.
        let branches: Vec<Value> = (0..4)
            .map(|n| json!({"properties": {"op": {"const": n}, "of": {"$ref": "#"}}}))
            .collect();
        let bounds = bounds(&json!({"anyOf": branches})).unwrap();
        let mut value = json!({"op": 1});
        let mut checked = 0;
        while bounds.check(&value).is_ok() {
            value = json!({"op": 1, "of": value});
            checked += 1;
        }
        assert!((8..40).contains(&checked), "{checked}");
    }

    #[test]
    fn a_chain_of_references_is_bounded() {
        let defs: serde_json::Map<String, Value> = (0..2_000)
            .map(|n| {
                (
                    format!("d{n}"),
                    json!({"$ref": format!("#/$defs/d{}", (n + 1).min(1_999))}),
                )
            })
            .chain([("d1999".to_owned(), json!({}))])
            .collect();
        let chain = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(bounds(&chain).unwrap_err().contains("within each other"));
    }
}

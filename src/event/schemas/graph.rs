//! The subschemas of a document, and which of them are applied where.
//!
//! Finds what would make a check fetch something, or never end: references out of the document, and
//! subschemas that apply themselves to the same value again.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Most subschemas of a document.
const MAX_NODES: usize = 50_000;

/// A subschema, and the subschemas that it applies. They are named by their places in the graph.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Applied to the same value.
    pub(super) same: Vec<usize>,
    /// Applied to one member or item each.
    pub(super) one: Vec<usize>,
    /// Applied to any number of members or items.
    pub(super) any: Vec<usize>,
    /// Work of its own keywords.
    pub(super) weight: u64,
    /// It looks at what its subschemas have looked at, and so has them applied again.
    pub(super) repeats: bool,
}

/// The subschemas that the root applies, the root first.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
}

const SAME: [&str; 4] = ["not", "if", "then", "else"];
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SAME_MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
const ANY: [&str; 6] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "contains",
    "unevaluatedItems",
    "additionalItems",
];

impl Graph {
    /// The graph of a document.
    ///
    /// # Errors
    /// What the document has that is not supported, with its place.
    pub(super) fn of(root: &Value) -> Result<Self, String> {
        let anchors = Anchors::of(root)?;
        let mut walk = Walk {
            root,
            anchors,
            places: HashMap::new(),
            found: Vec::new(),
        };
        walk.place(root)?;
        let mut nodes = Vec::new();
        while let Some(&schema) = walk.found.get(nodes.len()) {
            nodes.push(walk.node(schema)?);
        }
        Ok(Self { nodes })
    }
}

struct Walk<'a> {
    root: &'a Value,
    anchors: Anchors<'a>,
    /// By the address of the subschema in the document.
    places: HashMap<*const Value, usize>,
    found: Vec<&'a Value>,
}

impl<'a> Walk<'a> {
    fn place(&mut self, schema: &'a Value) -> Result<usize, String> {
        let next = self.found.len();
        if next >= MAX_NODES {
            return Err(format!("has more than {MAX_NODES} subschemas"));
        }
        let place = *self.places.entry(schema).or_insert(next);
        if place == next {
            self.found.push(schema);
        }
        Ok(place)
    }

    fn node(&mut self, schema: &'a Value) -> Result<Node, String> {
        let mut node = Node {
            weight: 1,
            ..Node::default()
        };
        let Value::Object(members) = schema else {
            return Ok(node);
        };
        if let Some(reference) = members.get("$ref") {
            let target = self.target(reference)?;
            node.same.push(self.place(target)?);
        }
        for (name, value) in members {
            match (name.as_str(), value) {
                (name, value) if SAME.contains(&name) => node.same.push(self.place(value)?),
                (name, Value::Array(list)) if SAME_LISTS.contains(&name) => {
                    for one in list {
                        node.same.push(self.place(one)?);
                    }
                }
                (name, Value::Object(map)) if SAME_MAPS.contains(&name) => {
                    for one in map.values().filter(|one| is_schema(one)) {
                        node.same.push(self.place(one)?);
                    }
                }
                ("properties", Value::Object(map)) => {
                    for one in map.values() {
                        node.one.push(self.place(one)?);
                    }
                }
                ("patternProperties", Value::Object(map)) => {
                    for one in map.values() {
                        node.any.push(self.place(one)?);
                    }
                }
                ("prefixItems" | "items", Value::Array(list)) => {
                    for one in list {
                        node.one.push(self.place(one)?);
                    }
                }
                ("items", value) => node.any.push(self.place(value)?),
                (name, value) if ANY.contains(&name) => node.any.push(self.place(value)?),
                ("enum" | "required" | "type", Value::Array(list)) => {
                    node.weight = node.weight.saturating_add(list.len() as u64);
                }
                _ => node.weight = node.weight.saturating_add(1),
            }
        }
        let repeats = ["unevaluatedProperties", "unevaluatedItems"];
        node.repeats = repeats.iter().any(|name| members.contains_key(*name));
        Ok(node)
    }

    /// What a reference leads to.
    fn target(&self, reference: &Value) -> Result<&'a Value, String> {
        let text = reference.as_str().ok_or("has a $ref that is no string")?;
        let outside = || {
            let shown: String = text.chars().take(128).collect();
            format!(
                "has $ref {shown:?}, and nothing is fetched for a schema; copy what it means under $defs \
                 and write \"#/$defs/NAME\""
            )
        };
        let fragment = text.strip_prefix('#').ok_or_else(outside)?;
        let fragment = percent_decode_str(fragment)
            .decode_utf8()
            .map_err(|_| outside())?;
        let target = match &*fragment {
            "" => Some(self.root),
            pointer if pointer.starts_with('/') => self.root.pointer(pointer),
            name => self.anchors.0.get(name).copied(),
        };
        target.filter(|target| is_schema(target)).ok_or_else(|| {
            let shown: String = text.chars().take(128).collect();
            format!("has $ref {shown:?}, but no schema is there")
        })
    }
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// The names that a document gives to places in it.
struct Anchors<'a>(HashMap<&'a str, &'a Value>);

impl<'a> Anchors<'a> {
    /// Looks at every place that could be a schema, also at those that no keyword applies.
    fn of(root: &'a Value) -> Result<Self, String> {
        let mut anchors = HashMap::new();
        let mut left = vec![root];
        while let Some(value) = left.pop() {
            match value {
                Value::Array(items) => left.extend(items),
                Value::Object(members) => {
                    refuse_moved_base(members, std::ptr::eq(value, root))?;
                    if let Some(Value::String(name)) = members.get("$anchor") {
                        anchors.insert(name.as_str(), value);
                    }
                    // Values that are compared, and not schemas.
                    let values = members.iter().filter(|(name, _)| {
                        !matches!(name.as_str(), "enum" | "const" | "default" | "examples")
                    });
                    left.extend(values.map(|(_, value)| value));
                }
                _ => {}
            }
        }
        Ok(Self(anchors))
    }
}

/// Refuses keywords by which a reference means another place than it seems to.
fn refuse_moved_base(members: &Map<String, Value>, is_root: bool) -> Result<(), String> {
    for name in ["$dynamicRef", "$recursiveRef"] {
        if members.get(name).is_some_and(Value::is_string) {
            return Err(format!("has {name}, which is not supported; write $ref"));
        }
    }
    let has_id = members.get("$id").is_some_and(Value::is_string);
    if has_id && !is_root {
        return Err("has an $id below its root, which is not supported; leave it out".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subschemas_are_found_once_with_what_they_apply() {
        let schema = json!({
            "properties": {"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#named"}},
            "items": {"$ref": "#"},
            "$defs": {"x": {"type": "string"}, "y": {"$anchor": "named", "enum": [1, 2, 3]}}
        });
        let graph = Graph::of(&schema).unwrap();
        assert_eq!(graph.nodes.len(), 6);
        let root = &graph.nodes[0];
        assert_eq!((root.one.len(), root.any.len()), (2, 1));
        let itself = &graph.nodes[root.any[0]];
        assert_eq!(itself.same, [0]);
    }

    #[test]
    fn what_would_leave_the_document_is_refused() {
        for (schema, words) in [
            (
                json!({"$ref": "https://example.org/a.json"}),
                "nothing is fetched",
            ),
            (
                json!({"properties": {"a": {"$ref": "other.json"}}}),
                "nothing is fetched",
            ),
            (json!({"$ref": "file:///etc/passwd"}), "nothing is fetched"),
            (json!({"$ref": "#/$defs/none"}), "no schema is there"),
            (json!({"$ref": "#none"}), "no schema is there"),
            (json!({"$ref": 5}), "no string"),
            (json!({"$dynamicRef": "#a"}), "$dynamicRef"),
            (
                json!({"properties": {"a": {"$id": "https://example.org/"}}}),
                "$id",
            ),
        ] {
            let error = Graph::of(&schema).unwrap_err();
            assert!(error.contains(words), "{schema}: {error}");
        }
        // A property of that name, and values.
        let fine = json!({"properties": {"$id": {"type": "string"}, "$ref": true}, "enum": [{"$ref": "x"}]});
        assert!(Graph::of(&fine).is_ok());
    }
}

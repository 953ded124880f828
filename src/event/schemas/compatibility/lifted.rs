//! The steps of an upcast, applied to a schema in place of its payloads.

use super::Incompatibility;
use crate::event::schemas::{Upcast, UpcastPath};
use serde_json::{Map, Value, json};

/// The schema of the payloads that the steps make.
///
/// # Errors
/// A step whose effect on the schema cannot be followed.
pub(super) fn lift(schema: &Value, steps: &[Upcast]) -> Result<Value, Incompatibility> {
    let mut lifted = schema.clone();
    for step in steps {
        let (path, done) = match step {
            Upcast::Rename { from, to } => match taken(&mut lifted, from) {
                Some(taken) => (to, put_at(&mut lifted, from, to, taken)),
                None => (from, None),
            },
            Upcast::Set {
                path,
                value,
                only_absent,
            } => (path, set(&mut lifted, path, value.get(), *only_absent)),
            Upcast::Remove(path) => (path, remove(&mut lifted, path)),
        };
        if done.is_none() {
            return Err(Incompatibility {
                pointer: path.segments().iter().map(|one| format!("/{one}")).collect(),
                rule: "upcast".to_owned(),
                reason: "cannot be judged: the older schema does not describe this place by `properties` and \
                         `items` alone; check it, and declare it with compatible = \"declared\""
                    .to_owned(),
                is_certain: false,
            });
        }
    }
    Ok(lifted)
}

/// Takes out the member that a step moves; whether it was required.
fn taken(schema: &mut Value, from: &UpcastPath) -> Option<(Value, bool)> {
    let name = from.segments().last()?;
    let parent = parent(schema, from)?;
    let was_required = is_required(parent, name);
    Some((take(parent, name)?, was_required))
}

/// Puts a member that was moved into its place, and makes the objects on the way there that payloads did not have.
fn put_at(
    schema: &mut Value,
    from: &UpcastPath,
    to: &UpcastPath,
    (member, was_required): (Value, bool),
) -> Option<()> {
    let (name, parents) = to.segments().split_last()?;
    let (_, shared) = from.segments().split_last()?;
    // A payload may lack the other parents of a member that is required there.
    let is_always_made = was_required && parents.starts_with(shared);
    let mut schema = schema;
    for segment in parents {
        let parent = plain(schema)?;
        if segment != "*" && self::member(parent, segment).is_none() {
            put(parent, segment, json!({"type": "object"}), is_always_made)?;
        }
        schema = below(parent, segment)?;
    }
    put(plain(schema)?, name, member, was_required)
}

fn set(schema: &mut Value, path: &UpcastPath, value: &str, only_absent: bool) -> Option<()> {
    let value: Value = serde_json::from_str(value).ok()?;
    let value = json!({ "const": value });
    let name = path.segments().last()?;
    let parent = parent(schema, path)?;
    let member = match member(parent, name) {
        Some(old) if only_absent && is_required(parent, name) => old.clone(),
        Some(old) if only_absent => json!({ "anyOf": [old, value] }),
        _ => value,
    };
    put(parent, name, member, true)
}

fn remove(schema: &mut Value, path: &UpcastPath) -> Option<()> {
    let parent = parent(schema, path)?;
    take(parent, path.segments().last()?)?;
    Some(())
}

/// The schema of the object that has the path's last member.
fn parent<'a>(schema: &'a mut Value, path: &UpcastPath) -> Option<&'a mut Map<String, Value>> {
    let (_, parents) = path.segments().split_last()?;
    let mut schema = schema;
    for segment in parents {
        schema = below(plain(schema)?, segment)?;
    }
    plain(schema)
}

/// The schema of the part to which a segment of a path leads.
fn below<'a>(schema: &'a mut Map<String, Value>, segment: &str) -> Option<&'a mut Value> {
    match segment {
        "*" => schema.get_mut("items"),
        name => schema.get_mut("properties")?.get_mut(name),
    }
}

/// The keywords of a schema that no other schema stands beside.
fn plain(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    const BESIDE: [&str; 8] = [
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "patternProperties",
        "dependentSchemas",
    ];
    let members = schema.as_object_mut()?;
    let is_plain = BESIDE.iter().all(|keyword| !members.contains_key(*keyword));
    is_plain.then_some(members)
}

fn member<'a>(parent: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    parent.get("properties")?.get(name)
}

fn is_required(parent: &Map<String, Value>, name: &str) -> bool {
    let names = parent.get("required").and_then(Value::as_array);
    names.is_some_and(|names| names.iter().any(|one| one == name))
}

/// Takes a member out: payloads do not have it any longer.
fn take(parent: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let properties = parent.get_mut("properties")?.as_object_mut()?;
    let member = properties.insert(name.to_owned(), Value::Bool(false))?;
    if let Some(Value::Array(names)) = parent.get_mut("required") {
        names.retain(|one| one != name);
    }
    Some(member)
}

fn put(
    parent: &mut Map<String, Value>,
    name: &str,
    schema: Value,
    is_required: bool,
) -> Option<()> {
    let properties = parent.entry("properties").or_insert_with(|| json!({}));
    properties.as_object_mut()?.insert(name.to_owned(), schema);
    if is_required {
        let required = parent.entry("required").or_insert_with(|| json!([]));
        let required = required.as_array_mut()?;
        if !required.iter().any(|one| one == name) {
            required.push(Value::from(name));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn path(text: &str) -> UpcastPath {
        UpcastPath::parse(text).unwrap()
    }

    #[test]
    fn steps_change_a_schema_as_they_change_its_payloads() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string"}, "b": {"type": "integer"}}});
        let steps = [
            Upcast::Rename {
                from: path("a"),
                to: path("name"),
            },
            Upcast::Set {
                path: path("currency"),
                value: RawValue::from_string("\"BRL\"".to_owned()).unwrap(),
                only_absent: true,
            },
            Upcast::Remove(path("b")),
        ];
        let expected = json!({"type": "object", "required": ["name", "currency"], "properties": {
            "a": false, "b": false, "name": {"type": "string"}, "currency": {"const": "BRL"}}});
        assert_eq!(lift(&schema, &steps).unwrap(), expected);
        let steps_below = [
            Upcast::Rename {
                from: path("a"),
                to: path("/price/amount"),
            },
            Upcast::Set {
                path: path("/price/currency"),
                value: RawValue::from_string("\"BRL\"".to_owned()).unwrap(),
                only_absent: false,
            },
        ];
        let expected = json!({"type": "object", "required": ["price"], "properties": {
            "a": false, "b": {"type": "integer"}, "price": {"type": "object", "required": ["amount", "currency"],
            "properties": {"amount": {"type": "string"}, "currency": {"const": "BRL"}}}}});
        assert_eq!(lift(&schema, &steps_below).unwrap(), expected);
        let unjudged = lift(&json!({"$ref": "#/x"}), &steps).unwrap_err();
        assert_eq!(
            (unjudged.pointer.as_str(), unjudged.is_certain),
            ("/a", false)
        );
    }
}

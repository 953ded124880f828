//! Whether what one version of a schema accepts, another one accepts too.
//!
//! The comparison follows the keywords of both schemas. What it cannot judge it reports as such, and
//! counts as incompatible: "compatible" is a promise, "incompatible" asks for a look.

mod arrays;
mod compare;
mod composition;
mod lifted;
mod objects;
mod scalars;

use super::TypeSchemas;
use super::document::SchemaDocument;
use compare::Comparison;
use serde_json::Value;

/// Who must understand whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompatibilityMode {
    /// Readers of the newer version understand payloads of the older one.
    Backward,
    /// Readers of the older version understand payloads of the newer one.
    Forward,
    /// Both.
    Full,
}

/// What speaks against compatibility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// The place in the payload: a JSON pointer, in which `*` stands for each item.
    pub pointer: String,
    /// The keyword that decides.
    pub rule: String,
    pub reason: String,
    /// False if it could not be judged.
    pub is_certain: bool,
}

/// How two versions in a row compare.
#[derive(Debug)]
pub struct VersionPair {
    pub older: i16,
    pub newer: i16,
    /// The settings declare them compatible.
    pub is_declared: bool,
    pub found: Vec<Incompatibility>,
}

impl VersionPair {
    /// Whether nothing speaks against it, or the settings overrule what does.
    pub fn is_compatible(&self) -> bool {
        self.is_declared || self.found.is_empty()
    }
}

/// Compares each version of a type with the one before. Before the comparison the steps of `upcast` are
/// applied to the older schema, as they are to its payloads. With `strict`, a payload of an open object may
/// have any member; otherwise producers are taken to send only members that their version names.
pub fn compare_versions(
    schemas: &TypeSchemas,
    mode: CompatibilityMode,
    strict: bool,
) -> Vec<VersionPair> {
    let versions: Vec<_> = schemas.versions().collect();
    versions
        .windows(2)
        .filter_map(|pair| match pair {
            [(older, before), (newer, after)] => Some(VersionPair {
                older: *older,
                newer: *newer,
                is_declared: after.is_declared_compatible,
                found: compare(
                    &before.document,
                    &after.upcast,
                    &after.document,
                    mode,
                    strict,
                ),
            }),
            _ => None,
        })
        .collect()
}

fn compare(
    older: &SchemaDocument,
    steps: &[super::Upcast],
    newer: &SchemaDocument,
    mode: CompatibilityMode,
    strict: bool,
) -> Vec<Incompatibility> {
    let mut found = Vec::new();
    if mode != CompatibilityMode::Forward {
        match lifted::lift(older.value(), steps) {
            Ok(lifted) => found.extend(Comparison::run(&lifted, newer.value(), strict)),
            Err(unjudged) => found.push(unjudged),
        }
    }
    if mode != CompatibilityMode::Backward {
        // There are no steps back.
        let forward = Comparison::run(newer.value(), older.value(), strict);
        found.extend(forward.into_iter().map(|one| Incompatibility {
            reason: format!("forward: {}", one.reason),
            ..one
        }));
    }
    found
}

/// The payloads that `examples` of a version give, checked as such and, with the steps of the versions
/// behind it, as payloads of the newest version.
pub fn check_examples(schemas: &TypeSchemas) -> Vec<(i16, String)> {
    let mut found = Vec::new();
    for (number, version) in schemas.versions() {
        let examples = version.document.value().get("examples");
        for (place, example) in examples
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if let Err(reason) = check_example(schemas, number, example) {
                found.push((number, format!("examples/{place}: {reason}")));
            }
        }
    }
    found
}

fn check_example(schemas: &TypeSchemas, number: i16, example: &Value) -> Result<(), String> {
    let first = |found: Vec<crate::event::item::SchemaViolation>| {
        found.first().map_or_else(String::new, ToString::to_string)
    };
    let text = example.to_string();
    schemas.check(Some(number), &text).map_err(first)?;
    let mut data =
        serde_json::value::RawValue::from_string(text).map_err(|error| error.to_string())?;
    for (newer, version) in schemas.versions().filter(|(newer, _)| *newer > number) {
        data = super::upcast_one(version, &data).map_err(|error| error.to_string())?;
        schemas
            .check(Some(newer), data.get())
            .map_err(|found| format!("upcast to version {newer} it {}", first(found)))?;
    }
    Ok(())
}

//! One JSON Schema document: checked, compiled, and applied to payloads.
//!
//! A document is read once, from the settings. Nothing else is ever fetched for it: references lead to
//! places in the document itself ([`graph`](super::graph)). Patterns run on the engine of the crate
//! `regex`, whose time is linear in the text.

use super::bounds::WorkBounds;
use super::graph::Graph;
use crate::event::item::EXTRA;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::panic::AssertUnwindSafe;

/// Largest document.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Broken rules that are reported of one payload.
const MAX_REPORTED: usize = 16;
/// Longest pointer and reason in a report.
const MAX_SHOWN: usize = 256;
/// Memory of a compiled pattern.
const MAX_PATTERN: usize = 1024 * 1024;

/// A schema that is ready to check payloads.
pub struct SchemaDocument {
    text: String,
    value: Value,
    validator: Validator,
    bounds: WorkBounds,
    /// Whether the schema itself says something about [`EXTRA`].
    names_extra: bool,
}

/// A rule that a payload breaks.
pub(super) struct BrokenRule {
    pub(super) pointer: String,
    pub(super) rule: String,
    pub(super) reason: String,
}

impl BrokenRule {
    fn own(rule: &str, reason: String) -> Vec<Self> {
        vec![Self {
            pointer: String::new(),
            rule: rule.to_owned(),
            reason,
        }]
    }
}

impl SchemaDocument {
    /// Checks and compiles a document.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about the schema.
    pub fn compile(text: String) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!(
                "has {} bytes, more than the {MAX_BYTES} that a schema may have",
                text.len()
            ));
        }
        let value: Value =
            serde_json::from_str(&text).map_err(|error| format!("is not valid JSON: {error}"))?;
        let Some(members) = value.as_object() else {
            return Err("must be a JSON object".to_owned());
        };
        let draft = draft_of(members.get("$schema"))?;
        let graph = Graph::of(&value)?;
        let bounds = WorkBounds::of(&graph)?;
        let validator = build(draft, &value)?;
        let names_extra = value
            .get("properties")
            .is_some_and(|properties| properties.get(EXTRA).is_some());
        Ok(Self {
            text,
            value,
            validator,
            bounds,
            names_extra,
        })
    }

    /// The document as it was declared.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Tells documents apart in the comparison of settings.
    pub(super) fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    /// Checks a payload.
    pub(super) fn check(&self, data: &str) -> Result<(), Vec<BrokenRule>> {
        let mut value: Value = serde_json::from_str(data).map_err(|error| {
            // A number beyond an f64, or more levels than are read.
            BrokenRule::own("json", format!("cannot be checked: {error}"))
        })?;
        if !self.names_extra
            && let Some(members) = value.as_object_mut()
        {
            // Eclusa's own member, which keeps the unknown fields of a message.
            members.remove(EXTRA);
        }
        self.bounds
            .check(&value)
            .map_err(|reason| BrokenRule::own("bounds", reason))?;
        let checking = AssertUnwindSafe(|| {
            if self.validator.is_valid(&value) {
                return Vec::new();
            }
            let errors = self.validator.iter_errors(&value).take(MAX_REPORTED);
            errors.map(|error| broken(&error)).collect()
        });
        match std::panic::catch_unwind(checking) {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(found),
            Err(_panic) => Err(BrokenRule::own(
                "crash",
                "the code that checks it crashed".to_owned(),
            )),
        }
    }
}

impl std::fmt::Debug for SchemaDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchemaDocument")
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

fn broken(error: &jsonschema::ValidationError<'_>) -> BrokenRule {
    BrokenRule {
        pointer: shortened(&error.instance_path().to_string()),
        rule: shortened(&error.schema_path().to_string()),
        reason: shortened(&error.masked_with("the value").to_string()),
    }
}

/// A validator of a part of a document that has no references.
pub(super) fn validator(schema: &Value) -> Result<Validator, String> {
    build(Draft::Draft202012, schema)
}

fn build(draft: Draft, schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options()
        .with_draft(draft)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN));
    match std::panic::catch_unwind(AssertUnwindSafe(|| options.build(schema))) {
        Ok(Ok(validator)) => Ok(validator),
        Ok(Err(error)) => {
            let at = shortened(&error.instance_path().to_string());
            let reason = shortened(&error.to_string());
            Err(format!("is no valid JSON Schema at {at:?}: {reason}"))
        }
        Err(_panic) => Err("cannot be compiled: the compiler crashed over it".to_owned()),
    }
}

/// The text, cut where it is too long to be shown.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// The draft that `$schema` names; 2020-12 without it.
fn draft_of(schema: Option<&Value>) -> Result<Draft, String> {
    let Some(schema) = schema else {
        return Ok(Draft::Draft202012);
    };
    let name = schema.as_str().unwrap_or_default().trim_end_matches('#');
    let name = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"));
    Ok(match name {
        Some("json-schema.org/draft/2020-12/schema") => Draft::Draft202012,
        Some("json-schema.org/draft/2019-09/schema") => Draft::Draft201909,
        Some("json-schema.org/draft-07/schema") => Draft::Draft7,
        Some("json-schema.org/draft-06/schema") => Draft::Draft6,
        _ => {
            return Err(format!(
                "names the dialect {} in $schema, which is not known; write \
                 \"https://json-schema.org/draft/2020-12/schema\", or leave it out",
                shortened(&schema.to_string())
            ));
        }
    })
}

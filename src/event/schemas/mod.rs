//! Schemas of event types: what payloads of a version must satisfy, and how a payload of an older version
//! becomes one of the newest.
//!
//! An event carries the number of its version (`schemaVersion`). One without a number counts as of the
//! oldest declared version: a producer that knows nothing of versions was written when there was one, and
//! declaring a second one must not change what its events mean.

mod bounds;
pub mod compatibility;
mod document;
mod graph;
mod upcast;

use super::StoredEvent;
use super::item::SchemaViolation;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use document::{MAX_BYTES, SchemaDocument};
pub use upcast::{Upcast, UpcastPath};

/// What becomes of an HTTP caller's event that breaks its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// The request gets 400.
    #[default]
    Refuse,
    /// It is kept as a dead letter, and can be replayed.
    Quarantine,
}

/// In which form a reader gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum SchemaView {
    /// As they were sent.
    #[default]
    Sent,
    /// As the newest version of their type's schema has them.
    Latest,
}

/// The schemas of all types that have one; clones share them.
#[derive(Clone, Default)]
pub struct Schemas(Option<Arc<BTreeMap<String, TypeSchemas>>>);

/// The versions of one type's schema.
#[derive(Debug)]
pub struct TypeSchemas {
    pub event_type: String,
    pub on_invalid: OnInvalid,
    /// The number of the first of the versions; each further one has the next number.
    oldest: i16,
    versions: Vec<SchemaVersion>,
}

/// One version of a schema.
#[derive(Debug)]
pub struct SchemaVersion {
    pub document: SchemaDocument,
    /// What makes a payload of this version from one of the version before.
    pub upcast: Vec<Upcast>,
    /// The settings say that it is compatible with the version before.
    pub is_declared_compatible: bool,
}

impl Schemas {
    /// No type has a schema.
    pub const NONE: Schemas = Schemas(None);

    /// The schemas of these types.
    pub fn new(types: impl IntoIterator<Item = TypeSchemas>) -> Self {
        let types: BTreeMap<String, TypeSchemas> = types
            .into_iter()
            .map(|schemas| (schemas.event_type.clone(), schemas))
            .collect();
        Self((!types.is_empty()).then(|| Arc::new(types)))
    }

    /// The schemas of a type, if it has any.
    pub fn of_type(&self, event_type: &str) -> Option<&TypeSchemas> {
        self.0.as_ref()?.get(event_type)
    }

    /// All types with a schema, in the order of their names.
    pub fn types(&self) -> impl Iterator<Item = &TypeSchemas> {
        self.0.iter().flat_map(|types| types.values())
    }

    /// The event in the form that a reader asks for.
    pub fn viewed(&self, view: SchemaView, event: StoredEvent) -> StoredEvent {
        match view {
            SchemaView::Sent => event,
            SchemaView::Latest => self.to_latest(event),
        }
    }

    /// The event as the newest version of its type's schema has it. What the log keeps stays as it is. An
    /// event of a type without schemas, or of a version that is not declared, comes back unchanged: its
    /// `schema_version` says which it is.
    pub fn to_latest(&self, mut event: StoredEvent) -> StoredEvent {
        let Some(schemas) = self.of_type(&event.event_type) else {
            return event;
        };
        let version = schemas.resolve(event.schema_version);
        let Some(steps) = schemas.steps_from(version) else {
            return event;
        };
        if !steps.is_empty() {
            match upcast::apply(&steps, &event.event_data) {
                Ok(data) => event.event_data = data,
                Err(error) => {
                    tracing::error!(event_id = %event.event_id, %error, "an event could not be upcast");
                    return event;
                }
            }
        }
        event.schema_version = Some(schemas.newest());
        event
    }
}

impl PartialEq for Schemas {
    /// Whether both are clones of one.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Schemas {}

impl std::fmt::Debug for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let types = self.types().map(|schemas| {
            let digests = schemas.versions.iter().map(|one| one.document.digest());
            (&schemas.event_type, digests.collect::<Vec<_>>())
        });
        f.debug_map().entries(types).finish()
    }
}

impl TypeSchemas {
    /// The schemas of a type; the first of the versions has the number `oldest`.
    pub fn new(
        event_type: String,
        on_invalid: OnInvalid,
        oldest: i16,
        versions: Vec<SchemaVersion>,
    ) -> Self {
        Self {
            event_type,
            on_invalid,
            oldest,
            versions,
        }
    }

    /// The number of the oldest version.
    pub fn oldest(&self) -> i16 {
        self.oldest
    }

    /// The number of the newest version.
    pub fn newest(&self) -> i16 {
        let behind = self.versions.len().saturating_sub(1);
        self.oldest
            .saturating_add(i16::try_from(behind).unwrap_or(i16::MAX))
    }

    /// The version with this number.
    pub fn version(&self, number: i16) -> Option<&SchemaVersion> {
        self.versions.get(self.place(number)?)
    }

    /// All versions with their numbers, the oldest first.
    pub fn versions(&self) -> impl Iterator<Item = (i16, &SchemaVersion)> {
        (self.oldest..=i16::MAX).zip(&self.versions)
    }

    /// The number that an event's version stands for.
    pub fn resolve(&self, version: Option<i16>) -> i16 {
        version.unwrap_or(self.oldest)
    }

    /// Checks a payload against the schema of its version.
    ///
    /// # Errors
    /// The rules that it breaks; not all of them if they are many.
    pub fn check(&self, version: Option<i16>, data: &str) -> Result<(), Vec<SchemaViolation>> {
        let number = self.resolve(version);
        let violation = |pointer, rule, reason| SchemaViolation {
            event_type: self.event_type.clone(),
            version: number,
            pointer,
            rule,
            reason,
        };
        let Some(schema) = self.version(number) else {
            let reason = format!(
                "this version is not declared; those from {} to {} are",
                self.oldest,
                self.newest()
            );
            return Err(vec![violation(
                String::new(),
                "schemaVersion".to_owned(),
                reason,
            )]);
        };
        let Err(broken) = schema.document.check(data) else {
            return Ok(());
        };
        let hint = if version.is_none() && self.versions.len() > 1 {
            format!(
                " (without schemaVersion an event counts as of the oldest version, {number}; the newest is {})",
                self.newest()
            )
        } else {
            String::new()
        };
        Err(broken
            .into_iter()
            .map(|rule| violation(rule.pointer, rule.rule, format!("{}{hint}", rule.reason)))
            .collect())
    }

    /// What makes a payload of the newest version from one of this version; `None` if it is not declared.
    fn steps_from(&self, version: i16) -> Option<Vec<&Upcast>> {
        let newer = self.versions.get(self.place(version)? + 1..)?;
        Some(newer.iter().flat_map(|one| &one.upcast).collect())
    }

    fn place(&self, number: i16) -> Option<usize> {
        let place = usize::try_from(i32::from(number) - i32::from(self.oldest)).ok()?;
        (place < self.versions.len()).then_some(place)
    }
}

/// A step from one version to the next, applied to a payload of the former one.
///
/// # Errors
/// The payload is no JSON object.
pub fn upcast_one(
    version: &SchemaVersion,
    data: &serde_json::value::RawValue,
) -> Result<Box<serde_json::value::RawValue>, serde_json::Error> {
    let steps: Vec<&Upcast> = version.upcast.iter().collect();
    upcast::apply(&steps, data)
}

//! The rules of an item, and the error of a field that breaks one.

use super::data_rules::DataRules;
use super::violation::SchemaViolation;
use serde::{Deserialize, Serialize};

/// Errors of one kind that are reported of an item one by one.
pub(super) const MAX_REPORTED: usize = 16;

/// The limits of an item; part of the settings that change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemLimits {
    /// Levels of nesting in `eventData`.
    pub max_depth: usize,
    /// UTF-8 bytes of `id`, `userId`, `eventType` and `sessionId`, each.
    pub max_field_bytes: usize,
    /// How many days back the day inside a UUIDv7 id may lie.
    pub accept_days: u32,
    /// What payloads are checked for.
    pub data: DataRules,
}

/// What an item must satisfy besides its limits; depends on the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An item without `userId` is refused.
    pub user_required: bool,
    /// Unknown fields are refused, so that the caller can correct a misspelt name. Otherwise they
    /// are kept: as `eventData` where the item has none, else in its member
    /// [`EXTRA`](super::EXTRA).
    pub refuse_unknown: bool,
    /// An event that breaks its schema may be kept as a dead letter. Otherwise it is no event, as other
    /// invalid items.
    pub may_quarantine: bool,
}

impl Rules {
    /// Strict: an HTTP caller gets the errors in the response.
    pub const HTTP: Rules = Rules {
        user_required: true,
        refuse_unknown: true,
        may_quarantine: true,
    };
    /// Lenient: a publisher gets no response, so what can be stored of its message is stored.
    pub const AMQP: Rules = Rules {
        user_required: false,
        refuse_unknown: false,
        may_quarantine: false,
    };
}

/// An error in one field of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's name on the wire; empty for the item as a whole.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
    /// The rule of the type's schema that is broken, if it is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Box<SchemaViolation>>,
}

impl FieldError {
    /// An error in `field`.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.into(),
            schema: None,
        }
    }
}

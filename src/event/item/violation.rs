//! A rule of a schema that a payload breaks.

use super::rules::FieldError;
use serde::{Deserialize, Serialize};

/// The rule, and where it is broken. No value of the payload is part of it: reasons are logged, and
/// travel in headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaViolation {
    /// The event type whose schema it is.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version of the schema.
    pub version: i16,
    /// Where in `eventData`: a JSON pointer, empty for the whole.
    pub pointer: String,
    /// The rule's place in the schema: a JSON pointer whose last part is the keyword. Without a leading
    /// slash it is a bound of Eclusa's own.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for SchemaViolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            event_type,
            version,
            pointer,
            rule,
            reason,
        } = self;
        write!(
            f,
            "breaks version {version} of the schema of {event_type} at {pointer:?}, rule {rule}: {reason}"
        )
    }
}

impl From<SchemaViolation> for FieldError {
    fn from(violation: SchemaViolation) -> Self {
        let mut error = FieldError::new("eventData", violation.to_string());
        error.schema = Some(Box::new(violation));
        error
    }
}

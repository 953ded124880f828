//! What the payloads of some event types must satisfy: Pix messages their contract, and types with a
//! schema in the settings that schema.

use super::rules::FieldError;
use super::violation::SchemaViolation;
use crate::event::pix::{self, PixMessage, PixRules};
#[cfg(feature = "service")]
use crate::event::schemas::{OnInvalid, Schemas};

/// The rules of payloads; part of the settings that change at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRules {
    /// What the data of Pix messages is checked for; `None` if it is not.
    pub pix: Option<PixRules>,
    /// The schemas of the settings.
    #[cfg(feature = "service")]
    pub schemas: Schemas,
}

/// A payload that may enter the flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedData {
    /// The version of the schema that it follows, or is said to follow.
    pub schema_version: Option<i16>,
    /// The rule that it breaks, if its type's events are then quarantined instead of refused.
    pub quarantined: Option<Box<SchemaViolation>>,
}

impl DataRules {
    /// No rules.
    pub const NONE: DataRules = DataRules {
        pix: None,
        #[cfg(feature = "service")]
        schemas: Schemas::NONE,
    };

    /// Checks the payload of an event; `version` is that of the schema which the producer names.
    ///
    /// # Errors
    /// All rules that it breaks.
    pub fn check(
        &self,
        event_type: &str,
        version: Option<i16>,
        data: &str,
    ) -> Result<CheckedData, Vec<FieldError>> {
        if let (Some(rules), pix::EVENT_TYPE) = (self.pix, event_type) {
            PixMessage::parse(data, rules)?;
        }
        #[cfg(feature = "service")]
        if let Some(schemas) = self.schemas.of_type(event_type) {
            let schema_version = Some(schemas.resolve(version));
            let broken = match schemas.check(version, data) {
                Ok(()) => None,
                Err(violations) if schemas.on_invalid == OnInvalid::Refuse => {
                    return Err(violations.into_iter().map(FieldError::from).collect());
                }
                Err(violations) => violations.into_iter().next(),
            };
            return Ok(CheckedData {
                schema_version,
                quarantined: broken.map(Box::new),
            });
        }
        Ok(CheckedData {
            schema_version: version,
            quarantined: None,
        })
    }
}

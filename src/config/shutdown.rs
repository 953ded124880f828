//! Stopping.

use super::{Invalid, units};
use serde::Deserialize;
use std::time::Duration;

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long to go on serving, already unready.
    #[serde(with = "units::duration")]
    pub grace: Duration,
    /// How long what is in hand may then take to settle.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
}

impl ShutdownSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        if self.deadline.is_zero() {
            found.push(Invalid::new(
                "shutdown.deadline",
                "must be longer than nothing",
            ));
        }
    }
}

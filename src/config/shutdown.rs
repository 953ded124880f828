//! Settings of the shutdown.

use super::{Invalid, units};
use serde::Deserialize;
use std::time::Duration;

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long the process serves after it reports not ready.
    #[serde(with = "units::duration")]
    pub grace: Duration,
    /// How long events in flight may take to settle after that.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
}

impl ShutdownSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        if self.deadline.is_zero() {
            found.push(Invalid::new("shutdown.deadline", "must be longer than 0s"));
        }
    }
}

//! Settings of retries.

use super::{Invalid, in_range, units};
use serde::Deserialize;
use std::time::Duration;

/// `[retry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    /// Attempts before an event is dead-lettered.
    pub max_attempts: u32,
    /// Delay before the second attempt.
    #[serde(with = "units::duration")]
    pub base_delay: Duration,
    #[serde(with = "units::duration")]
    pub max_delay: Duration,
}

impl RetrySettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "retry.max_attempts", self.max_attempts, 1..=100);
        if self.base_delay.as_millis() == 0 || self.base_delay > self.max_delay {
            found.push(Invalid::new(
                "retry.base_delay, retry.max_delay",
                "must be at least 1ms, and the first not longer than the second",
            ));
        }
    }
}

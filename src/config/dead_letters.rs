//! Settings of dead letters.

use super::{Invalid, in_range};
use serde::Deserialize;

/// `[dead_letters]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSettings {
    /// In full mode: project dead letters from their queue into the table.
    pub project: bool,
    /// Default rate of a replay, in dead letters per second; 0 is unlimited.
    pub replay_rate: u32,
}

impl DeadLetterSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(
            found,
            "dead_letters.replay_rate",
            self.replay_rate,
            0..=1_000_000,
        );
    }
}

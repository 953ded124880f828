//! What was put aside.

use super::{Invalid, in_range};
use serde::Deserialize;

/// `[dead_letters]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSettings {
    /// In full mode: move the letters from their queue into the table.
    pub project: bool,
    /// Letters that a replay sends in a second unless told otherwise; 0 is without a bound.
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

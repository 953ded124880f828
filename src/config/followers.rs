//! Settings of the followers of the log.

use super::{Invalid, in_range};
use serde::Deserialize;

/// `[followers]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowerSettings {
    /// Connections to PostgreSQL on which followers work, and how many may hold a chunk at a time.
    pub connections: usize,
    /// Days for which the retention waits for a follower, after `store.retention`.
    pub hold_days: u32,
}

impl FollowerSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "followers.connections", self.connections, 1..=100);
        in_range(found, "followers.hold_days", self.hold_days, 0..=36_500);
    }
}

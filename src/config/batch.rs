//! When a batch is due and how large it may be. Read again at run time.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::time::Duration;

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSettings {
    /// Events with which a batch is due.
    pub max_events: usize,
    /// Most rows in a batch.
    pub max_rows: usize,
    /// Bytes with which a batch is due, and most bytes in it unless a single event has more.
    pub max_bytes: ByteSize,
    /// Age of its oldest event with which a batch is due.
    #[serde(with = "units::duration")]
    pub max_wait: Duration,
    /// How long few events with waiting callers wait for more, though no write is under way.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// Batches written at once.
    pub writers: usize,
}

impl BatchSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "batch.max_rows", self.max_rows, 1..=4_096);
        if self.max_events == 0 || self.max_events > self.max_rows {
            found.push(Invalid::new(
                "batch.max_events",
                format!(
                    "is {}, but must be 1 to batch.max_rows, which is {} (at most 4096)",
                    self.max_events, self.max_rows
                ),
            ));
        }
        in_range(
            found,
            "batch.max_bytes",
            self.max_bytes,
            ByteSize::kib(1)..=ByteSize::mib(512),
        );
        in_range(found, "batch.writers", self.writers, 1..=64);
        if self.linger > Duration::from_millis(20) {
            found.push(Invalid::new("batch.linger", "must be 20ms at most"));
        }
        if self.max_wait.is_zero() {
            found.push(Invalid::new(
                "batch.max_wait",
                "must be longer than nothing",
            ));
        }
    }
}

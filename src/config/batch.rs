//! When a batch goes out. Read again at run time.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::time::Duration;

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSettings {
    /// Events that fill a batch.
    pub max_events: usize,
    /// Bytes that fill a batch.
    pub max_bytes: ByteSize,
    /// How long its oldest event waits at most.
    #[serde(with = "units::duration")]
    pub max_wait: Duration,
    /// How long a few events that callers wait for may wait for more, though a writer is idle.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// Batches written at once.
    pub writers: usize,
}

impl BatchSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "batch.max_events", self.max_events, 1..=50_000);
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

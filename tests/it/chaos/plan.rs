//! What to run.

use std::fmt;
use std::time::Duration;

/// What Eclusa runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Full,
    Database,
    Embedded,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub mode: Mode,
    /// Of the strikes; healing and draining come on top.
    pub time: Duration,
    pub seed: u64,
    /// Longest pause before a strike, beside the wait for recovery.
    pub pause_ms: u64,
}

impl Plan {
    pub fn new(mode: Mode, time: Duration, seed: u64) -> Self {
        Self {
            mode,
            time,
            seed,
            pause_ms: 3_000,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Database => "database",
            Self::Embedded => "embedded",
        })
    }
}

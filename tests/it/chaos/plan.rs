//! What to run.

use std::fmt;
use std::time::Duration;

/// What Eclusa runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Full,
    /// Full mode with `broker.order = "user"`.
    Ordered,
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
    pub pause: Duration,
    /// Longest time for which something is dead, stopped or cut off.
    pub harm: Duration,
}

impl Plan {
    pub fn new(mode: Mode, time: Duration, seed: u64) -> Self {
        Self {
            mode,
            time,
            seed,
            pause: Duration::from_secs(2),
            harm: Duration::from_secs(5),
        }
    }
}

impl Mode {
    pub fn has_broker(self) -> bool {
        matches!(self, Self::Full | Self::Ordered)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Ordered => "ordered",
            Self::Database => "database",
            Self::Embedded => "embedded",
        })
    }
}

//! The rate of a lane's attempts.

use std::time::{Duration, Instant};

/// How much may be made up for at once after a pause.
const BURST: Duration = Duration::from_millis(200);

/// When the next attempt may start.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two attempts; `None` if there is no rate.
    every: Option<Duration>,
    next: Instant,
}

impl Rate {
    /// The share of one lane in a reaction's rate.
    pub(super) fn new(per_second: Option<f64>, lanes: u32) -> Self {
        let every = |rate: f64| Duration::try_from_secs_f64(f64::from(lanes.max(1)) / rate).ok();
        Self {
            every: per_second.and_then(every),
            next: Instant::now(),
        }
    }

    /// When the next attempt may start.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// How many of `wanted` attempts may start now.
    pub(super) fn permits(&self, wanted: usize) -> usize {
        match self.every {
            None => wanted,
            Some(_) if self.next <= Instant::now() => wanted.min(1),
            Some(_) => 0,
        }
    }

    /// Counts an attempt.
    pub(super) fn charge(&mut self) {
        if let Some(every) = self.every {
            let now = Instant::now();
            self.next = self.next.max(now.checked_sub(BURST).unwrap_or(now)) + every;
        }
    }
}

//! Exponential back-off with jitter, which spreads simultaneous failures.

use rand::Rng;
use std::time::Duration;

/// Exponential back-off between two bounds.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that starts at `min` and doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// The next pause: between half and the whole of `min * 2^failures`.
    pub fn next_pause(&mut self) -> Duration {
        let pause = Self::pause(self.min, self.max, self.failures);
        self.failures = self.failures.saturating_add(1).min(30);
        pause
    }

    /// The pause after so many earlier failures.
    pub fn pause(min: Duration, max: Duration, failures: u32) -> Duration {
        let whole = min
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(max);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts again at `min`, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[39] >= Duration::from_secs(1) && pauses[39] <= Duration::from_secs(2));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }
}

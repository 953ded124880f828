//! How long things took.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);

/// Times, to three digits, between a microsecond and two minutes.
#[derive(Debug, Clone)]
pub struct Latency {
    micros: Histogram<u64>,
}

impl Latency {
    /// None yet.
    ///
    /// # Errors
    /// The histogram's, which do not occur for these bounds.
    pub fn new() -> anyhow::Result<Self> {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        Ok(Self {
            micros: Histogram::new_with_bounds(1, longest, 3)?,
        })
    }

    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.saturating_record(micros.max(1));
    }

    /// Adds all of another.
    ///
    /// # Errors
    /// The histogram's, which do not occur for equal bounds.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.micros.add(&other.micros)?;
        Ok(())
    }

    /// The time within which this share (0 to 1) of them lies, in milliseconds.
    pub fn at(&self, share: f64) -> f64 {
        self.micros.value_at_quantile(share) as f64 / 1_000.0
    }

    /// The longest, in milliseconds.
    pub fn max(&self) -> f64 {
        self.micros.max() as f64 / 1_000.0
    }

    pub fn count(&self) -> u64 {
        self.micros.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut all = Latency::new().unwrap();
        let mut other = Latency::new().unwrap();
        for ms in 1..=50 {
            all.record(Duration::from_millis(ms));
            other.record(Duration::from_millis(50 + ms));
        }
        all.add(&other).unwrap();
        assert_eq!(all.count(), 100);
        assert!((all.at(0.5) - 50.0).abs() < 0.1, "{}", all.at(0.5));
        assert!((all.at(0.99) - 99.0).abs() < 0.1, "{}", all.at(0.99));
        other.record(Duration::from_secs(500));
        assert!((other.max() - 120_000.0).abs() < 200.0, "{}", other.max());
    }
}

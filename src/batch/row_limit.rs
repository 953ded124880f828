//! The most rows in one batch, reduced while batches contain bad rows.
//!
//! A batch with bad rows is bisected until each stands alone: k bad rows of n cost about
//! 2k log2(n/k) writes, and the good rows of the batch wait for them. Smaller batches bound that
//! wait.

use std::time::{Duration, Instant};

/// Bad rows in one batch from which on batches become smaller.
const MANY_BAD_ROWS: usize = 8;
/// The limit is not reduced below this.
const FLOOR: usize = 100;
/// How long a reduced limit stays without another such batch.
const REDUCED_FOR: Duration = Duration::from_secs(60);

/// The reduced limit, while there is one.
#[derive(Debug, Default)]
pub struct RowLimit {
    reduced: Option<(usize, Instant)>,
}

impl RowLimit {
    /// The most rows in a batch now, where `batch.max_rows` is `max_rows`.
    pub fn rows(&self, max_rows: usize, now: Instant) -> usize {
        self.reduced
            .filter(|(_, until)| now < *until)
            .map_or(max_rows, |(limit, _)| limit.min(max_rows))
    }

    /// Counts a batch's bad rows. With many of them the limit is halved for a minute; returns the
    /// new limit when it changes.
    pub fn batch_written(
        &mut self,
        bad_rows: usize,
        max_rows: usize,
        now: Instant,
    ) -> Option<usize> {
        if bad_rows < MANY_BAD_ROWS {
            return None;
        }
        let limit = self.rows(max_rows, now);
        let halved = (limit / 2).max(FLOOR).min(limit);
        self.reduced = Some((halved, now + REDUCED_FOR));
        (halved < limit).then_some(halved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bad_rows_halve_the_limit_for_a_minute() {
        let mut limit = RowLimit::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.batch_written(7, 2_000, at(0)), None);
        assert_eq!(limit.rows(2_000, at(0)), 2_000);
        let halved: Vec<_> = (0..6)
            .map_while(|_| limit.batch_written(8, 2_000, at(0)))
            .collect();
        assert_eq!(halved, [1_000, 500, 250, 125, 100]);
        assert_eq!(limit.batch_written(8, 2_000, at(30)), None, "the floor");
        assert_eq!(limit.rows(2_000, at(89)), 100, "counted from the last one");
        assert_eq!(limit.rows(2_000, at(90)), 2_000);
        assert_eq!(limit.batch_written(9, 2_000, at(90)), Some(1_000));
    }

    #[test]
    fn a_setting_below_the_floor_stays() {
        let mut limit = RowLimit::default();
        let now = Instant::now();
        assert_eq!(limit.batch_written(50, 40, now), None);
        assert_eq!(limit.rows(40, now), 40);
    }
}

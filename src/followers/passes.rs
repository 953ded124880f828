//! Which pages of the arrivals the next pass looks through.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A pass over all pages that takes no longer than this, or of a table that has no more pages than this, is
/// made each time: a table that is vacuumed stays below.
const CHEAP: Duration = Duration::from_millis(50);
const SMALL: i64 = 2_000;
/// How many times its length passes between two dearer ones, and the longest time.
const APART: u32 = 100;
const MAX_APART: Duration = Duration::from_secs(10);
/// What was written within this time is looked at in every pass.
const RECENT: Duration = Duration::from_secs(2);

/// The passes of one sequencer. While an old snapshot keeps dead rows alive, a pass over all pages takes
/// ever longer; most passes then begin where the table ended two seconds ago. A transaction that was open
/// for longer waits for the next pass over all.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Where the table ended, and when.
    ends: VecDeque<(Instant, i64)>,
    /// When the last pass over all pages ended, and how long it took.
    all: Option<(Instant, Duration)>,
    pages: i64,
}

impl Passes {
    /// The page from which the next pass looks.
    pub(super) fn next(&self, now: Instant) -> i64 {
        match self.all {
            Some((at, took))
                if took > CHEAP && self.pages > SMALL && now.duration_since(at) < apart(took) =>
            {
                self.ends
                    .front()
                    .filter(|(at, _)| now.duration_since(*at) >= RECENT)
                    .map_or(0, |(_, page)| *page)
            }
            _ => 0,
        }
    }

    /// A pass from this page has ended at `now` and found so many pages.
    pub(super) fn made(&mut self, from: i64, pages: i64, took: Duration, now: Instant) {
        if from == 0 {
            self.all = Some((now, took));
        }
        if pages < from {
            // The table was cut off: new rows lie anywhere.
            *self = Self::default();
        }
        self.pages = pages;
        self.ends.push_back((now, pages));
        // The front is the youngest one that is old enough.
        while let Some((at, _)) = self.ends.get(1)
            && now.duration_since(*at) >= RECENT
        {
            self.ends.pop_front();
        }
    }
}

fn apart(took: Duration) -> Duration {
    took.saturating_mul(APART).min(MAX_APART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_passes_over_all_pages_are_rare_and_the_others_begin_two_seconds_back() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut passes = Passes::default();
        passes.made(0, 3_000, Duration::from_millis(1), at(0));
        assert_eq!(passes.next(at(1)), 0, "a cheap one");
        passes.made(0, 3_001, Duration::from_millis(100), at(1_000));
        assert_eq!(passes.next(at(1_001)), 0, "nothing is old enough");
        passes.made(0, 3_002, Duration::from_millis(100), at(2_000));
        assert_eq!(passes.next(at(2_001)), 3_000);
        passes.made(3_000, 3_003, Duration::from_millis(1), at(3_000));
        assert_eq!(
            passes.next(at(3_001)),
            3_001,
            "where it ended two seconds ago"
        );
        passes.made(3_001, 3_004, Duration::from_millis(1), at(11_999));
        assert_ne!(passes.next(at(11_999)), 0);
        assert_eq!(passes.next(at(12_000)), 0, "all again after ten seconds");
        passes.made(3_001, 5, Duration::from_millis(1), at(11_999));
        assert_eq!(passes.next(at(11_999)), 0, "after it was cut off");
        passes.made(0, 100, Duration::from_secs(1), at(20_000));
        passes.made(0, 100, Duration::from_secs(1), at(23_000));
        assert_eq!(passes.next(at(23_001)), 0, "a small table");
    }
}

//! Where the numbering looks next.

use crate::store::commit_log::{Horizon, Look};
use std::time::{Duration, Instant};

/// A look at everything that takes no longer than this is made each time. It does when the table of arrivals
/// is vacuumed.
const CHEAP: Duration = Duration::from_millis(5);
/// How many times its length passes between two dearer ones, and the longest time.
const APART: u32 = 100;
const MAX_APART: Duration = Duration::from_secs(10);
/// A horizon is this old before it is used: by then most of its transactions have ended, of which each that
/// ends later costs a look at everything.
const AGE: Duration = Duration::from_secs(1);

/// The looks of one sequencer. While an old snapshot keeps dead rows of the arrivals alive, a look at all of
/// them takes ever longer; most looks then begin above a horizon that is a second old.
#[derive(Debug, Default)]
pub(super) struct Passes {
    horizon: Horizon,
    later: Option<(Instant, Horizon)>,
    /// When the last look at everything ended, and how long it took.
    all: Option<(Instant, Duration)>,
}

impl Passes {
    /// Whether looks are so dear that a new horizon is needed.
    pub(super) fn wants_horizon(&self) -> bool {
        self.later.is_none() && self.all.is_some_and(|(_, took)| took > CHEAP)
    }

    pub(super) fn take(&mut self, horizon: Horizon, now: Instant) {
        self.later = Some((now, horizon));
    }

    /// The next look.
    pub(super) fn next(&self, now: Instant) -> Look {
        let spared = self.all.is_some_and(|(at, took)| {
            let apart = took.saturating_mul(APART).min(MAX_APART);
            took > CHEAP && now.duration_since(at) < apart
        });
        let later = self.later.as_ref();
        Look {
            above: match spared {
                true => self.horizon.clone(),
                false => Horizon::default(),
            },
            later: later
                .filter(|(at, _)| now.duration_since(*at) >= AGE)
                .map(|(_, horizon)| horizon.clone()),
        }
    }

    /// A look was made, and found all that there was if it is `complete`.
    pub(super) fn made(&mut self, look: Look, complete: bool, took: Duration, now: Instant) {
        if look.above.block == 0 {
            self.all = Some((now, took));
        } else if complete {
            // Otherwise what ended has left more, and is to be found ended again.
            self.horizon = look.above;
        }
        if let Some(later) = look.later {
            self.later = None;
            if complete {
                self.horizon = later;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const DEAR: Duration = Duration::from_millis(90);

    fn horizon(block: i64) -> Horizon {
        Horizon {
            block,
            open: vec![7],
        }
    }

    #[test]
    fn dear_looks_at_everything_are_rare_and_the_others_begin_above_a_horizon() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut passes = Passes::default();
        passes.made(passes.next(at(0)), true, QUICK, at(0));
        assert!(!passes.wants_horizon(), "looks are cheap");
        passes.made(passes.next(at(1)), true, DEAR, at(100));
        assert!(passes.wants_horizon());
        passes.take(horizon(5), at(100));
        assert!(!passes.wants_horizon());
        assert_eq!(passes.next(at(1_099)), Look::default(), "it is too young");
        let look = passes.next(at(1_100));
        assert_eq!((look.above.block, &look.later), (0, &Some(horizon(5))));
        passes.made(look, true, DEAR, at(1_200));
        assert_eq!(passes.next(at(1_201)).above, horizon(5));
        // The next one takes its place without a look at everything.
        passes.take(horizon(9), at(1_200));
        let look = passes.next(at(2_200));
        assert_eq!((look.above.block, &look.later), (5, &Some(horizon(9))));
        passes.made(look.clone(), false, QUICK, at(2_200));
        assert_eq!(passes.next(at(2_201)).above, horizon(5), "more is to come");
        passes.made(look, true, QUICK, at(2_300));
        assert_eq!(passes.next(at(2_301)).above, horizon(9));
        assert_eq!(passes.next(at(10_199)).above, horizon(9));
        assert_eq!(
            passes.next(at(10_200)),
            Look::default(),
            "all, now and then"
        );
        passes.made(Look::default(), true, QUICK, at(10_300));
        assert_eq!(passes.next(at(10_301)), Look::default(), "cheap again");
    }
}

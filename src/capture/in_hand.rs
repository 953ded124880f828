//! What a capture has handed over and is not durable yet, and which place in the log that stands for.

use super::Lsn;
use super::state::TableSnapshot;
use crate::consume::ack_tracker::{AckTracker, Acknowledgement};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is durable when everything that was handed over before it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// Everything that was committed before this place.
    Place(Lsn),
    /// The rows of a chunk; the snapshot of its table has got so far.
    Chunk {
        table: String,
        snapshot: TableSnapshot,
    },
    /// A change that has moved a row to this key, which the snapshot of the table is to read again.
    Moved { table: String, key: Vec<String> },
}

/// The groups of events that were handed over, in their order.
pub(super) struct InHand {
    pub(super) tracker: Arc<AckTracker>,
    /// Number of the newest group.
    newest: u64,
    /// Number of the newest group of which all is durable.
    durable: u64,
    /// Each with the group that it follows.
    marks: VecDeque<(u64, Mark)>,
}

impl InHand {
    pub(super) fn new(tracker: Arc<AckTracker>) -> Self {
        Self {
            tracker,
            newest: 0,
            durable: 0,
            marks: VecDeque::new(),
        }
    }

    /// The number of the next group.
    pub(super) fn begin_group(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// Notes what is durable with the newest group, or with the next one, which is being gathered. Of two places in a row
    /// the later one holds.
    pub(super) fn mark(&mut self, mark: Mark, gathers: bool) {
        let group = self.newest + u64::from(gathers);
        if let (Mark::Place(_), Some((before, Mark::Place(_)))) = (&mark, self.marks.back())
            && *before == group
        {
            self.marks.pop_back();
        }
        self.marks.push_back((group, mark));
    }

    /// Whether everything is durable.
    pub(super) fn is_empty(&self) -> bool {
        self.durable == self.newest
    }

    /// Takes groups that are durable out of the tracker.
    ///
    /// # Errors
    /// A group has come back: from here on nothing may be written.
    pub(super) fn settle(&mut self) -> Result<(), Returned> {
        for acknowledgement in self.tracker.take_settled() {
            match acknowledgement {
                Acknowledgement::UpTo(group) => self.durable = group,
                Acknowledgement::Requeue(_) => return Err(Returned),
            }
        }
        self.tracker.told();
        if self.tracker.is_closed() {
            return Err(Returned);
        }
        Ok(())
    }

    /// The marks that hold now, in their order.
    ///
    /// # Errors
    /// As [`InHand::settle`].
    pub(super) fn settled(&mut self) -> Result<Vec<Mark>, Returned> {
        self.settle()?;
        let held = |(group, _): &&(u64, Mark)| *group <= self.durable;
        let number = self.marks.iter().take_while(held).count();
        let marks = self.marks.drain(..number).map(|(_, mark)| mark).collect();
        Ok(marks)
    }
}

/// An event came back unwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Returned;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::budget::Budget;
    use crate::event::{Origin, Outcome};
    use crate::metrics::accounting::EventAccounting;

    fn in_hand() -> InHand {
        let tracker = AckTracker::ordered(EventAccounting::default(), 9, None);
        InHand::new(Arc::new(tracker))
    }

    #[test]
    fn a_place_holds_when_all_before_it_is_durable() {
        let budget = Budget::new(100);
        let mut in_hand = in_hand();
        in_hand.mark(Mark::Place(Lsn(1)), false);
        in_hand.mark(Mark::Place(Lsn(2)), false);
        assert_eq!(in_hand.settled(), Ok(vec![Mark::Place(Lsn(2))]));
        for place in [3, 4] {
            let group = in_hand.begin_group();
            in_hand.tracker.enter(group, 1, budget.take(1));
            in_hand.mark(Mark::Place(Lsn(place)), false);
        }
        in_hand.mark(Mark::Place(Lsn(5)), true);
        in_hand.tracker.settle(2, Outcome::Stored);
        assert_eq!(in_hand.settled(), Ok(vec![]));
        assert!(!in_hand.is_empty());
        in_hand.tracker.settle(1, Outcome::Duplicate);
        let both = vec![Mark::Place(Lsn(3)), Mark::Place(Lsn(4))];
        assert_eq!(in_hand.settled(), Ok(both));
        assert!(in_hand.is_empty());
        // What waits for the group that is being gathered.
        let group = in_hand.begin_group();
        in_hand.tracker.enter(group, 1, budget.take(1));
        assert_eq!(in_hand.settled(), Ok(vec![]));
        in_hand.tracker.settle(group, Outcome::Stored);
        assert_eq!(in_hand.settled(), Ok(vec![Mark::Place(Lsn(5))]));
    }

    #[test]
    fn what_comes_back_ends_it() {
        let budget = Budget::new(100);
        let mut in_hand = in_hand();
        let group = in_hand.begin_group();
        in_hand.tracker.enter(group, 2, budget.take(1));
        in_hand.mark(Mark::Place(Lsn(1)), false);
        in_hand.tracker.settle(1, Outcome::Stored);
        in_hand.tracker.settle(1, Outcome::Returned);
        assert_eq!(in_hand.settled(), Err(Returned));
    }
}

//! Outcomes that wait to be stored.

use crate::store::ErrorKind;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an outcome that was refused alone waits for its next turn.
const AGAIN: Duration = Duration::from_secs(1);

/// With what an outcome is stored. A transaction that is open elsewhere may hold a lock that it needs, and no other one
/// must wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// With all others.
    All,
    /// With those whose handlers have begun to store them too: their transactions may be open still.
    Doubtful,
    /// By itself, after it was refused with others.
    Alone,
}

impl Company {
    /// The one whose turn it is after this one.
    fn next(self) -> Self {
        match self {
            Company::All => Company::Doubtful,
            Company::Doubtful => Company::Alone,
            Company::Alone => Company::All,
        }
    }

    /// How long the store may wait for a lock.
    pub(super) fn lock_timeout(self) -> Duration {
        match self {
            Company::All => Duration::from_secs(1),
            Company::Doubtful | Company::Alone => Duration::from_millis(200),
        }
    }
}

/// What is stored in one transaction.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) company: Company,
    pub(super) outcomes: Vec<T>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            company: Company::All,
            outcomes: Vec::new(),
        }
    }
}

/// Outcomes that wait to be stored.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    all: Vec<T>,
    doubtful: Vec<T>,
    /// Each with the time of its turn.
    alone: VecDeque<(Instant, T)>,
    /// Whose turn it is, so that none waits for ever.
    turn: Company,
    began: Instant,
}

impl<T> Backlog<T> {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            doubtful: Vec::new(),
            alone: VecDeque::new(),
            turn: Company::All,
            began: Instant::now(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len() + self.doubtful.len() + self.alone.len()
    }

    pub(super) fn push(&mut self, outcome: T) {
        self.all.push(outcome);
    }

    /// Adds one whose handler has begun to store it too.
    pub(super) fn push_doubtful(&mut self, outcome: T) {
        self.doubtful.push(outcome);
    }

    /// When the next one has its turn; a time in the past if that is now.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if !self.all.is_empty() || !self.doubtful.is_empty() {
            return Some(self.began);
        }
        self.alone.iter().map(|(at, _)| *at).min()
    }

    /// Takes what is stored next.
    pub(super) fn take(&mut self, now: Instant) -> Batch<T> {
        for _ in 0..3 {
            let company = self.turn;
            self.turn = company.next();
            let outcomes = match company {
                Company::All => std::mem::take(&mut self.all),
                Company::Doubtful => std::mem::take(&mut self.doubtful),
                Company::Alone => {
                    let due = self.alone.iter().position(|(at, _)| *at <= now);
                    let due = due.and_then(|due| self.alone.remove(due));
                    due.map(|(_, outcome)| outcome).into_iter().collect()
                }
            };
            if !outcomes.is_empty() {
                return Batch { company, outcomes };
            }
        }
        Batch::default()
    }

    /// Takes back what was not stored. Returns whether the store itself has failed, so that it is not to be asked for a
    /// while; what was refused for a reason of its own does not keep the others from being stored.
    pub(super) fn refused(&mut self, batch: Batch<T>, kind: Option<ErrorKind>) -> bool {
        let Batch { company, outcomes } = batch;
        let is_its_own = matches!(kind, Some(ErrorKind::Transient | ErrorKind::Poison));
        if outcomes.is_empty() || !is_its_own && company == Company::All {
            self.all.extend(outcomes);
            return true;
        }
        if !is_its_own && company == Company::Doubtful {
            self.doubtful.extend(outcomes);
            return true;
        }
        let at = match outcomes.len() {
            1 if is_its_own => Instant::now() + AGAIN,
            _ => Instant::now(),
        };
        self.alone
            .extend(outcomes.into_iter().map(|outcome| (at, outcome)));
        !is_its_own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch<T>(backlog: &mut Backlog<T>) -> Batch<T> {
        backlog.take(Instant::now())
    }

    #[test]
    fn each_company_has_its_turn() {
        let mut backlog = Backlog::new();
        (1..=2).for_each(|outcome| backlog.push(outcome));
        let refused = batch(&mut backlog);
        backlog.refused(refused, Some(ErrorKind::Transient));
        backlog.push_doubtful(3);
        let mut taken = Vec::new();
        for _ in 0..4 {
            // More of the first does not keep the last waiting.
            backlog.push(9);
            taken.push(batch(&mut backlog).outcomes);
        }
        assert_eq!(taken, [vec![3], vec![1], vec![9, 9, 9], vec![2]]);
        assert_eq!(backlog.len(), 1);
    }

    #[test]
    fn what_is_refused_with_others_goes_alone_and_then_waits() {
        let mut backlog = Backlog::new();
        (1..=2).for_each(|outcome| backlog.push(outcome));
        let both = batch(&mut backlog);
        assert_eq!(
            (both.company, &both.outcomes[..]),
            (Company::All, &[1, 2][..])
        );
        assert!(!backlog.refused(both, Some(ErrorKind::Transient)));
        let first = batch(&mut backlog);
        assert_eq!(
            (first.company, &first.outcomes[..]),
            (Company::Alone, &[1][..])
        );
        assert!(!backlog.refused(first, Some(ErrorKind::Transient)));
        assert_eq!(batch(&mut backlog).outcomes, [2]);
        assert!(batch(&mut backlog).outcomes.is_empty());
        assert!(backlog.due_at().is_some_and(|due| due > Instant::now()));
        assert_eq!(backlog.take(Instant::now() + AGAIN).outcomes, [1]);
    }

    #[test]
    fn an_outage_is_not_the_outcomes() {
        let mut backlog = Backlog::new();
        (1..=2).for_each(|outcome| backlog.push(outcome));
        for kind in [Some(ErrorKind::Outage), Some(ErrorKind::Operator), None] {
            let both = batch(&mut backlog);
            assert_eq!((both.company, both.outcomes.len()), (Company::All, 2));
            assert!(backlog.refused(both, kind));
        }
    }
}

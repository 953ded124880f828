//! How many events of each type there are, counted once and kept up to date.
//!
//! The log has no index by type. A process counts it in steps when it is asked for the first time, and after that what
//! has come since. Deleted events are still counted until all is counted again, some minutes after a deletion.

use crate::store::commit_log::Position;
use crate::store::topics::{LogBounds, TypeCount};
use crate::store::{Store, StoreError};
use chrono::{DateTime, SubsecRound, Utc};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

/// Events of a step, roughly.
const STEP: usize = 50_000;
/// How long a request counts; then it is answered with what is counted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Types that are told apart: callers make them up.
const TYPES: usize = 10_000;
/// How old a count is at least when it is made anew because events were deleted.
const ANEW: Duration = Duration::from_secs(600);

/// The event types of the log.
#[derive(Debug)]
pub struct TypeListing {
    /// By name.
    pub types: Vec<TypeCount>,
    /// Events of types beyond those that are told apart.
    pub others: u64,
    /// Up to here events are counted.
    pub to: Position,
    pub generation: i64,
    /// When this was so.
    pub as_of: DateTime<Utc>,
    /// Whether that was the end of the log.
    pub is_complete: bool,
    /// Whether there are types behind the last one.
    pub has_more: bool,
}

/// A count of the log from its beginning.
#[derive(Default)]
struct Tally {
    types: BTreeMap<String, TypeCount>,
    others: u64,
    to: Position,
    /// What was deleted when it began.
    deleted_to: Position,
    begun: Option<Instant>,
}

impl Tally {
    fn begin(bounds: LogBounds) -> Self {
        Self {
            deleted_to: bounds.deleted_to,
            begun: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Counts up to the end, or until the time is over; `true` if the end is reached.
    async fn go_on(
        &mut self,
        store: &dyn Store,
        turns: &Semaphore,
        end: Position,
        until: Instant,
    ) -> Result<bool, StoreError> {
        while self.to < end {
            if Instant::now() >= until {
                return Ok(false);
            }
            // Subscribers that are behind read in between. The semaphore is never closed.
            let turn = turns.acquire().await;
            let counted = store.count_types(self.to, STEP).await?;
            drop(turn);
            if counted.to <= self.to {
                break;
            }
            for count in counted.counts {
                self.add(count);
            }
            self.to = counted.to;
        }
        Ok(true)
    }

    fn add(&mut self, more: TypeCount) {
        if let Some(known) = self.types.get_mut(&more.event_type) {
            known.events = known.events.saturating_add(more.events);
            known.first = known.first.min(more.first);
            known.last = known.last.max(more.last);
        } else if self.types.len() < TYPES {
            self.types.insert(more.event_type.clone(), more);
        } else {
            self.others = self.others.saturating_add(more.events);
        }
    }

    fn is_outdated(&self, bounds: LogBounds) -> bool {
        self.deleted_to != bounds.deleted_to
            && self.begun.is_none_or(|begun| begun.elapsed() >= ANEW)
    }
}

#[derive(Default)]
struct Counting {
    generation: i64,
    current: Tally,
    /// One that will take its place.
    anew: Option<Tally>,
    as_of: DateTime<Utc>,
    is_complete: bool,
}

impl Counting {
    async fn go_on(
        &mut self,
        store: &dyn Store,
        turns: &Semaphore,
        until: Instant,
    ) -> Result<(), StoreError> {
        let generation = store.generation().await?;
        let now = Utc::now().trunc_subsecs(6);
        let bounds = store.log_bounds().await?;
        if generation != self.generation || bounds.end < self.current.to {
            *self = Self {
                generation,
                current: Tally::begin(bounds),
                ..Self::default()
            };
        }
        self.is_complete = false;
        self.as_of = now;
        self.is_complete = self.current.go_on(store, turns, bounds.end, until).await?;
        if self.anew.is_none() && self.current.is_outdated(bounds) {
            self.anew = Some(Tally::begin(bounds));
        }
        if let Some(anew) = &mut self.anew
            && anew.go_on(store, turns, bounds.end, until).await?
        {
            self.current = std::mem::take(anew);
            self.anew = None;
        }
        Ok(())
    }
}

/// Counts the log for all requests.
#[derive(Default)]
pub(super) struct TypeCounter {
    counting: Mutex<Counting>,
}

impl TypeCounter {
    /// The types behind a name, at most `limit`, when what has come is counted, or as much of it as can be soon.
    pub(super) async fn types(
        &self,
        store: &dyn Store,
        turns: &Semaphore,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<TypeListing>, StoreError> {
        let Ok(mut counting) = timeout(PATIENCE, self.counting.lock()).await else {
            return Ok(None);
        };
        let until = Instant::now() + PATIENCE;
        counting.go_on(store, turns, until).await?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let current = &counting.current;
        let mut behind = current.types.range::<str, _>((from, Bound::Unbounded));
        let types = behind.by_ref().take(limit).map(|(_, count)| count.clone());
        Ok(Some(TypeListing {
            types: types.collect(),
            others: current.others,
            to: current.to,
            generation: counting.generation,
            as_of: counting.as_of,
            is_complete: counting.is_complete,
            has_more: behind.next().is_some(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_type_add_up_and_types_are_bounded() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let count = |event_type: &str, events, first, last| TypeCount {
            event_type: event_type.to_owned(),
            events,
            first: at(first),
            last: at(last),
        };
        let mut tally = Tally::default();
        tally.add(count("a", 2, 5, 6));
        tally.add(count("a", 3, 4, 5));
        assert_eq!(tally.types["a"], count("a", 5, 4, 6));
        for n in 0..TYPES {
            tally.add(count(&n.to_string(), 1, 1, 1));
        }
        tally.add(count("a", 1, 9, 9));
        assert_eq!((tally.types.len(), tally.others), (TYPES, 1));
        assert_eq!(tally.types["a"].last, at(9));
    }
}

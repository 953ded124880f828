//! Events whose callers wait, on their way to the accumulator.
//!
//! They arrive in small groups from every HTTP worker. A message for each group would wake the
//! accumulator's thread, though it can do nothing before a writer is idle. So they gather here, and
//! the accumulator takes all of them when it has a writer for them. They survive a crash of the
//! accumulator. The budget of bytes bounds them.

use crate::event::Delivery;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events that are worth a write beside another one that is under way. Fewer share the next one: to
/// the store two small writes cost more than one.
pub const ENOUGH: usize = 100;
/// Events that are worth a write while none is under way, where a linger is set.
pub const ENOUGH_ALONE: usize = 32;

#[derive(Default)]
struct QueuedEvents {
    events: Vec<Delivery>,
    /// When the first of them arrived.
    since: Option<Instant>,
}

/// The queued events; clones share them.
#[derive(Clone, Default)]
pub struct WaitingEvents {
    waiting: Arc<Mutex<QueuedEvents>>,
}

impl WaitingEvents {
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.waiting.lock()).events
    }

    /// The number of events, and the age of the oldest.
    pub fn count_and_age(&self) -> (usize, Duration) {
        let waiting = self.waiting.lock();
        let age = waiting
            .since
            .map_or(Duration::ZERO, |since| since.elapsed());
        (waiting.events.len(), age)
    }

    /// Adds events. Returns whether the accumulator must be told: the queue was empty, or has just
    /// become large enough for a write.
    pub fn add(&self, deliveries: impl IntoIterator<Item = Delivery>) -> bool {
        let mut waiting = self.waiting.lock();
        let before = waiting.events.len();
        waiting.events.extend(deliveries);
        let after = waiting.events.len();
        if before == 0 && after > 0 {
            waiting.since = Some(Instant::now());
            return true;
        }
        [ENOUGH_ALONE, ENOUGH]
            .into_iter()
            .any(|enough| before < enough && after >= enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CallerMode, fixture};

    fn some(count: usize) -> Vec<Delivery> {
        fixture::deliveries(count, CallerMode::Caller)
    }

    #[test]
    fn the_accumulator_is_told_of_the_first_event_and_of_each_threshold() {
        let waiting = WaitingEvents::default();
        assert!(!waiting.add([]));
        assert!(waiting.add(some(2)));
        assert!(!waiting.add(some(1)));
        assert_eq!(waiting.take().len(), 3);
        assert!(waiting.take().is_empty());
        assert!(waiting.add(some(1)));
        let count = |waiting: &WaitingEvents| waiting.count_and_age().0;
        assert_eq!(count(&waiting), 1);
        assert!(!waiting.add(some(ENOUGH_ALONE - 2)));
        assert!(waiting.add(some(1)), "with a linger these are enough");
        assert!(!waiting.add(some(ENOUGH - ENOUGH_ALONE - 1)));
        assert!(waiting.add(some(1)), "now there are enough");
        assert!(!waiting.add(some(1)));
        assert_eq!(count(&waiting), ENOUGH + 1);
    }
}

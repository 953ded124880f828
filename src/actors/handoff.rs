//! The way to the accumulator for events whose callers wait.
//!
//! They come in small groups from every HTTP worker. Sending each group as a message would wake the
//! accumulator's thread for it, though it can do nothing before a writer asks. So they gather here,
//! the first of them says that there are some, and the accumulator takes them all when it has a
//! writer for them. What is here survives a crash of the accumulator. The budget of bytes bounds it.

use super::batch_accumulator::{BatchAccumulator, Nudge};
use crate::event::Delivery;
use crate::supervision::Mailbox;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events that are worth a write beside another one that is under way. Fewer share the next one: to
/// the store two small writes cost more than one.
pub const ENOUGH: usize = 100;
/// Events that are worth a write while none is under way, where a linger is set.
pub const ENOUGH_ALONE: usize = 32;

#[derive(Default)]
struct Waiting {
    events: Vec<Delivery>,
    /// When the first of them came.
    since: Option<Instant>,
}

/// The accumulator's side; clones share it.
#[derive(Clone, Default)]
pub struct WaitingEvents {
    waiting: Arc<Mutex<Waiting>>,
}

impl WaitingEvents {
    /// Takes all that is there.
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.waiting.lock()).events
    }

    /// How many there are, and how long the first of them has been there.
    pub fn look(&self) -> (usize, Duration) {
        let waiting = self.waiting.lock();
        let age = waiting
            .since
            .map_or(Duration::ZERO, |since| since.elapsed());
        (waiting.events.len(), age)
    }

    /// Adds events. Whether the accumulator should hear of it: they are the first, or there are
    /// enough of them now for a write.
    fn add(&self, deliveries: impl IntoIterator<Item = Delivery>) -> bool {
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

/// The doors' side; clones share it.
#[derive(Clone)]
pub struct Handoff {
    waiting: WaitingEvents,
    accumulator: Mailbox<BatchAccumulator>,
}

impl Handoff {
    /// The way to this accumulator, which was given the same `waiting`.
    pub fn new(waiting: WaitingEvents, accumulator: Mailbox<BatchAccumulator>) -> Self {
        Self {
            waiting,
            accumulator,
        }
    }

    /// Brings events. Their callers hear from their tickets.
    pub fn push(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        if self.waiting.add(deliveries) {
            // With a full mailbox the accumulator has messages before it, and looks here after each.
            let _ = self.accumulator.try_send(Nudge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Patience, fixture};

    fn some(count: usize) -> Vec<Delivery> {
        fixture::deliveries(count, Patience::Caller)
    }

    #[test]
    fn the_first_event_speaks_for_those_behind_it_and_so_does_the_one_that_makes_them_enough() {
        let waiting = WaitingEvents::default();
        assert!(!waiting.add([]));
        assert!(waiting.add(some(2)));
        assert!(!waiting.add(some(1)));
        assert_eq!(waiting.take().len(), 3);
        assert!(waiting.take().is_empty());
        assert!(waiting.add(some(1)));
        let count = |waiting: &WaitingEvents| waiting.look().0;
        assert_eq!(count(&waiting), 1);
        assert!(!waiting.add(some(ENOUGH_ALONE - 2)));
        assert!(waiting.add(some(1)), "with a linger these are enough");
        assert!(!waiting.add(some(ENOUGH - ENOUGH_ALONE - 1)));
        assert!(waiting.add(some(1)), "now there are enough");
        assert!(!waiting.add(some(1)));
        assert_eq!(count(&waiting), ENOUGH + 1);
    }
}

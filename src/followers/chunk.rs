//! How much of the log a follower takes at a time.

use std::time::Duration;

/// Events in the first chunk.
const FIRST: usize = 500;
/// Most events in a chunk.
const MOST: usize = 5_000;
/// How long applying a chunk should take.
const AIM: Duration = Duration::from_millis(100);
/// Slow chunks get no smaller than this: on a busy database each transaction takes long, however little it does, and
/// ever smaller ones would be ever slower altogether. What fails gets smaller than this.
const LEAST_FOR_TIME: usize = 100;

/// The size of the next chunk: as much as can be applied in a tenth of a second, and half of what failed.
#[derive(Debug)]
pub(super) struct ChunkSize {
    events: usize,
    /// Events that are worth reading, by the payloads of the last ones.
    readable: usize,
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self {
            events: FIRST,
            readable: FIRST,
        }
    }
}

impl ChunkSize {
    pub(super) fn events(&self) -> usize {
        self.events.min(self.readable)
    }

    /// A chunk of `events` with so many bytes of payloads was read, where `bytes` are allowed. The database
    /// reads all that is asked for before it can tell how much that is.
    pub(super) fn read(&mut self, events: usize, payloads: usize, allowed: usize) {
        if let Some(mean) = payloads.checked_div(events) {
            self.readable = (allowed / mean.max(1)).clamp(1, MOST);
        }
    }

    /// A chunk of `events` was applied in this time.
    pub(super) fn applied(&mut self, events: usize, took: Duration) {
        if took > AIM {
            self.events = (events / 2).max(LEAST_FOR_TIME.min(events));
        } else if events >= self.events() && took < AIM / 2 {
            self.events = self.events.saturating_mul(2).min(MOST);
        }
    }

    /// A chunk of `events` failed, and half of it is tried next. `false` if one event stands alone.
    pub(super) fn failed(&mut self, events: usize) -> bool {
        self.events = (events / 2).max(1);
        events > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_while_they_are_quick_and_halve_when_they_fail() {
        let mut size = ChunkSize::default();
        size.read(100, 10_000, 1_000_000);
        let quick = Duration::from_millis(10);
        size.applied(3, quick);
        assert_eq!(size.events(), FIRST);
        for _ in 0..10 {
            size.applied(size.events(), quick);
        }
        assert_eq!(size.events(), MOST);
        size.applied(MOST, Duration::from_millis(300));
        assert_eq!(size.events(), MOST / 2);
        for _ in 0..10 {
            size.applied(size.events(), Duration::from_millis(300));
        }
        assert_eq!(size.events(), LEAST_FOR_TIME);
        let mut failing = 9;
        while size.failed(failing) {
            failing = size.events();
        }
        assert_eq!((failing, size.events()), (1, 1));
    }

    #[test]
    fn large_payloads_make_small_chunks() {
        let mut size = ChunkSize::default();
        size.read(4, 1_000_000, 1_000_000);
        assert_eq!(size.events(), 4);
        size.read(1, 3_000_000, 1_000_000);
        assert_eq!(size.events(), 1);
        size.read(1, 10, 1_000_000);
        assert_eq!(size.events(), FIRST);
    }
}

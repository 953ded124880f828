//! Readers that wait for an event to become readable (`GET /v1/events/{id}?wait=5s`): a batch that holds
//! such an event leaves at once.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

#[derive(Default)]
struct ReadWaitersInner {
    /// Number of waiting readers; the hot path reads only this atomic while there are none.
    readers: AtomicUsize,
    by_id: Mutex<HashMap<Uuid, usize>>,
}

/// The waiting readers of this process, by event id; clones share them.
#[derive(Clone, Default)]
pub struct ReadWaiters {
    inner: Arc<ReadWaitersInner>,
}

impl ReadWaiters {
    /// Registers a reader of an event. Check whether the event exists only after this call.
    pub fn wait_for(&self, event_id: Uuid) -> WaitingReader {
        *self.inner.by_id.lock().entry(event_id).or_default() += 1;
        self.inner.readers.fetch_add(1, Ordering::AcqRel);
        WaitingReader {
            read_waiters: self.clone(),
            event_id,
        }
    }

    /// Whether a reader waits for this event.
    pub fn contains(&self, event_id: &Uuid) -> bool {
        !self.is_empty() && self.inner.by_id.lock().contains_key(event_id)
    }

    /// Whether no reader waits.
    pub fn is_empty(&self) -> bool {
        self.inner.readers.load(Ordering::Acquire) == 0
    }
}

/// A registered reader; dropping it ends the registration.
pub struct WaitingReader {
    read_waiters: ReadWaiters,
    event_id: Uuid,
}

impl Drop for WaitingReader {
    fn drop(&mut self) {
        let inner = &self.read_waiters.inner;
        inner.readers.fetch_sub(1, Ordering::AcqRel);
        let mut by_id = inner.by_id.lock();
        if let Some(readers) = by_id.get_mut(&self.event_id) {
            *readers -= 1;
            if *readers == 0 {
                by_id.remove(&self.event_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_waited_for_until_its_last_reader_is_gone() {
        let read_waiters = ReadWaiters::default();
        let id = Uuid::new_v4();
        let (first, second) = (read_waiters.wait_for(id), read_waiters.wait_for(id));
        assert!(read_waiters.contains(&id) && !read_waiters.contains(&Uuid::new_v4()));
        drop(first);
        assert!(read_waiters.contains(&id));
        drop(second);
        assert!(read_waiters.is_empty() && read_waiters.inner.by_id.lock().is_empty());
    }
}

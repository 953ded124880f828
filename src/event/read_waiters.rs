//! Readers that wait for an event to become readable (`GET /v1/events/{id}?wait=5s`).

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(Default)]
struct ReadWaitersInner {
    /// Number of waiting readers; the hot path reads only this atomic while there are none.
    readers: AtomicUsize,
    by_id: Mutex<HashMap<Uuid, (usize, Arc<Notify>)>>,
}

/// The waiting readers of this process, by event id; clones share them.
#[derive(Clone, Default)]
pub struct ReadWaiters {
    inner: Arc<ReadWaitersInner>,
}

impl ReadWaiters {
    /// Registers a reader of an event. Check whether the event exists only after this call.
    pub fn wait_for(&self, event_id: Uuid) -> WaitingReaders {
        let notify = {
            let mut by_id = self.inner.by_id.lock();
            let entry = by_id.entry(event_id).or_default();
            entry.0 += 1;
            Arc::clone(&entry.1)
        };
        self.inner.readers.fetch_add(1, Ordering::AcqRel);
        WaitingReaders {
            read_waiters: self.clone(),
            event_id,
            notify,
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

    /// Wakes the readers of an event that has become readable.
    pub fn announce(&self, event_id: &Uuid) {
        if self.is_empty() {
            return;
        }
        if let Some((_, notify)) = self.inner.by_id.lock().get(event_id) {
            notify.notify_waiters();
        }
    }
}

/// A registered reader; dropping it ends the registration.
pub struct WaitingReaders {
    read_waiters: ReadWaiters,
    event_id: Uuid,
    notify: Arc<Notify>,
}

impl WaitingReaders {
    /// Completes when the event is announced after this call.
    pub fn announced(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for WaitingReaders {
    fn drop(&mut self) {
        self.read_waiters
            .inner
            .readers
            .fetch_sub(1, Ordering::AcqRel);
        let mut by_id = self.read_waiters.inner.by_id.lock();
        if let Some(entry) = by_id.get_mut(&self.event_id) {
            entry.0 -= 1;
            if entry.0 == 0 {
                by_id.remove(&self.event_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_readers_of_an_event_wake_and_unregister() {
        let read_waiters = ReadWaiters::default();
        let id = Uuid::new_v4();
        let (first, second) = (read_waiters.wait_for(id), read_waiters.wait_for(id));
        assert!(read_waiters.contains(&id) && !read_waiters.contains(&Uuid::new_v4()));
        let (a, b) = (first.announced(), second.announced());
        let (mut a, mut b) = (Box::pin(a), Box::pin(b));
        a.as_mut().enable();
        b.as_mut().enable();
        read_waiters.announce(&id);
        a.await;
        b.await;
        drop(first);
        assert!(read_waiters.contains(&id));
        drop(second);
        assert!(read_waiters.is_empty() && read_waiters.inner.by_id.lock().is_empty());
    }
}

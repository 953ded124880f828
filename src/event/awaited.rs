//! Who waits for which event to become readable (`GET /v1/events/{id}?wait=5s`).

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(Default)]
struct Inner {
    /// Number of waiting readers, so that the hot path asks one atomic while there are none.
    readers: AtomicUsize,
    by_id: Mutex<HashMap<Uuid, (usize, Arc<Notify>)>>,
}

/// The events that readers of this process wait for; clones share them.
#[derive(Clone, Default)]
pub struct Awaited {
    inner: Arc<Inner>,
}

impl Awaited {
    /// Waits for an event from now on; look whether it is there already only after this.
    pub fn wait_for(&self, event_id: Uuid) -> Waiting {
        let notify = {
            let mut by_id = self.inner.by_id.lock();
            let entry = by_id.entry(event_id).or_default();
            entry.0 += 1;
            Arc::clone(&entry.1)
        };
        self.inner.readers.fetch_add(1, Ordering::AcqRel);
        Waiting {
            awaited: self.clone(),
            event_id,
            notify,
        }
    }

    /// Whether a reader waits for this event.
    pub fn contains(&self, event_id: &Uuid) -> bool {
        !self.is_empty() && self.inner.by_id.lock().contains_key(event_id)
    }

    /// Whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.inner.readers.load(Ordering::Acquire) == 0
    }

    /// Wakes the readers of an event that can be read now.
    pub fn announce(&self, event_id: &Uuid) {
        if self.is_empty() {
            return;
        }
        if let Some((_, notify)) = self.inner.by_id.lock().get(event_id) {
            notify.notify_waiters();
        }
    }
}

/// A reader that waits; dropping it ends the wait.
pub struct Waiting {
    awaited: Awaited,
    event_id: Uuid,
    notify: Arc<Notify>,
}

impl Waiting {
    /// Completes when the event is announced after this was called.
    pub fn announced(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.awaited.inner.readers.fetch_sub(1, Ordering::AcqRel);
        let mut by_id = self.awaited.inner.by_id.lock();
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
    async fn all_readers_of_an_event_hear_of_it_and_leave_nothing() {
        let awaited = Awaited::default();
        let id = Uuid::new_v4();
        let (first, second) = (awaited.wait_for(id), awaited.wait_for(id));
        assert!(awaited.contains(&id) && !awaited.contains(&Uuid::new_v4()));
        let (a, b) = (first.announced(), second.announced());
        let (mut a, mut b) = (Box::pin(a), Box::pin(b));
        a.as_mut().enable();
        b.as_mut().enable();
        awaited.announce(&id);
        a.await;
        b.await;
        drop(first);
        assert!(awaited.contains(&id));
        drop(second);
        assert!(awaited.is_empty() && awaited.inner.by_id.lock().is_empty());
    }
}

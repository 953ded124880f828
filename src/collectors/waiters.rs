//! Calls that wait for messages, by place. One that waits costs a notification, and no connection or thread.

use crate::store::streams::Place;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The calls of this process that wait.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    inner: Arc<WaitersInner>,
}

#[derive(Default)]
struct WaitersInner {
    places: Mutex<HashMap<Place, Waiting>>,
    /// Raised when a place is waited for that was not.
    joined: Notify,
}

struct Waiting {
    calls: usize,
    news: Arc<Notify>,
}

/// A call's place among the waiters, until dropped.
pub(super) struct Waiter {
    waiters: Waiters,
    place: Place,
    news: Arc<Notify>,
}

impl Waiters {
    pub(super) fn join(&self, place: &Place) -> Waiter {
        let mut places = self.inner.places.lock();
        let waiting = places.entry(place.clone()).or_insert_with(|| {
            self.inner.joined.notify_one();
            Waiting {
                calls: 0,
                news: Arc::default(),
            }
        });
        waiting.calls += 1;
        Waiter {
            waiters: self.clone(),
            place: place.clone(),
            news: Arc::clone(&waiting.news),
        }
    }

    /// Waits until a place is waited for that was not.
    pub(super) async fn joined(&self) {
        self.inner.joined.notified().await;
    }

    /// Whether no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.places.lock().is_empty()
    }

    /// The keys of a stream that are waited for.
    pub(super) fn keys(&self, stream: i32) -> Vec<String> {
        let places = self.inner.places.lock();
        let of_stream = places.keys().filter(|place| place.stream == stream);
        of_stream.map(|place| place.key.clone()).collect()
    }

    /// Has all calls that wait for a place ask again.
    pub(super) fn wake(&self, place: &Place) {
        if let Some(waiting) = self.inner.places.lock().get(place) {
            waiting.news.notify_waiters();
        }
    }
}

impl Waiter {
    /// Ends when the place is woken after this call of the function.
    pub(super) fn woken(&self) -> OwnedNotified {
        Arc::clone(&self.news).notified_owned()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut places = self.waiters.inner.places.lock();
        if let Some(waiting) = places.get_mut(&self.place) {
            waiting.calls = waiting.calls.saturating_sub(1);
            if waiting.calls == 0 {
                places.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn what_comes_between_the_look_and_the_wait_is_not_missed() {
        let waiters = Waiters::default();
        let place = Place {
            stream: 1,
            key: "k".to_owned(),
        };
        let waiter = waiters.join(&place);
        let woken = waiter.woken();
        waiters.wake(&place);
        assert!(woken.now_or_never().is_some());
        assert!(waiter.woken().now_or_never().is_none());
        assert_eq!(waiters.keys(1), ["k"]);
        let second = waiters.join(&place);
        drop(waiter);
        assert!(!waiters.is_empty());
        drop(second);
        assert!(waiters.is_empty() && waiters.keys(1).is_empty());
    }
}

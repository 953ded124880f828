//! Calls that wait for messages, by place. One that waits costs a notification, and no connection or thread.

use crate::store::streams::Place;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::Notify;

/// The calls of this process that wait.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    inner: Arc<WaitersInner>,
}

#[derive(Default)]
struct WaitersInner {
    places: Mutex<HashMap<Place, Waiting>>,
    /// By the sessions of their tokens: a call may take over the one that waits with the same token.
    sessions: Mutex<HashMap<i64, Waiting>>,
    /// By their numbers in the store, where another process may end them.
    polls: Mutex<HashMap<i64, Place>>,
    /// Raised when a place is waited for that was not.
    joined: Notify,
}

#[derive(Default)]
struct Waiting {
    calls: usize,
    news: Arc<Notify>,
}

/// A call's place among the waiters, until dropped.
pub(super) struct Waiter {
    waiters: Waiters,
    place: Place,
    news: Arc<Notify>,
    session: Option<(i64, Arc<Notify>)>,
    poll: Option<i64>,
}

impl Waiters {
    /// Begins to wait for a place, with a token of this session if there is one.
    pub(super) fn join(&self, place: &Place, session: Option<i64>) -> Waiter {
        let (news, is_first) = enter(&self.inner.places, place.clone());
        if is_first {
            self.inner.joined.notify_one();
        }
        Waiter {
            waiters: self.clone(),
            place: place.clone(),
            news,
            session: session.map(|session| (session, enter(&self.inner.sessions, session).0)),
            poll: None,
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

    /// The polls of the calls that wait.
    pub(super) fn polls(&self) -> Vec<i64> {
        self.inner.polls.lock().keys().copied().collect()
    }

    /// Has the calls that wait at the places of these polls ask again.
    pub(super) fn wake_polls(&self, polls: &[i64]) {
        for poll in polls {
            let place = self.inner.polls.lock().get(poll).cloned();
            if let Some(place) = place {
                self.wake(&place);
            }
        }
    }

    /// Has all calls that wait for a place ask again.
    pub(super) fn wake(&self, place: &Place) {
        if let Some(waiting) = self.inner.places.lock().get(place) {
            waiting.news.notify_waiters();
        }
    }
}

/// Adds a call. What wakes it, and whether it is the first one.
fn enter<K: Eq + Hash>(all: &Mutex<HashMap<K, Waiting>>, key: K) -> (Arc<Notify>, bool) {
    let mut all = all.lock();
    let waiting = all.entry(key).or_default();
    waiting.calls += 1;
    (Arc::clone(&waiting.news), waiting.calls == 1)
}

/// Takes a call out.
fn leave<K: Eq + Hash>(all: &Mutex<HashMap<K, Waiting>>, key: &K) {
    let mut all = all.lock();
    if let Some(waiting) = all.get_mut(key) {
        waiting.calls = waiting.calls.saturating_sub(1);
        if waiting.calls == 0 {
            all.remove(key);
        }
    }
}

impl Waiter {
    /// Ends when the place or the session is woken after this call of the function.
    pub(super) fn woken(&self) -> impl Future<Output = ()> + use<> {
        let of_place = Arc::clone(&self.news).notified_owned();
        let session = self.session.as_ref();
        let of_session = session.map(|(_, news)| Arc::clone(news).notified_owned());
        async move {
            match of_session {
                Some(of_session) => tokio::select! {
                    () = of_place => {}
                    () = of_session => {}
                },
                None => of_place.await,
            }
        }
    }

    /// Waits as this poll from now on, in place of the one before.
    pub(super) fn is_poll(&mut self, poll: i64) {
        let mut polls = self.waiters.inner.polls.lock();
        if let Some(before) = self.poll.replace(poll) {
            polls.remove(&before);
        }
        polls.insert(poll, self.place.clone());
    }

    /// Has the calls of the session ask again if there is another one: this one has taken it over, or the other way
    /// round, and the store knows.
    pub(super) fn wake_session(&self) {
        let Some((session, _)) = &self.session else {
            return;
        };
        let sessions = self.waiters.inner.sessions.lock();
        if let Some(waiting) = sessions.get(session).filter(|waiting| waiting.calls > 1) {
            waiting.news.notify_waiters();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        leave(&self.waiters.inner.places, &self.place);
        if let Some(poll) = self.poll {
            self.waiters.inner.polls.lock().remove(&poll);
        }
        if let Some((session, _)) = &self.session {
            leave(&self.waiters.inner.sessions, session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn place() -> Place {
        Place {
            stream: 1,
            key: "k".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_comes_between_the_look_and_the_wait_is_not_missed() {
        let waiters = Waiters::default();
        let waiter = waiters.join(&place(), None);
        let woken = waiter.woken();
        waiters.wake(&place());
        assert!(woken.now_or_never().is_some());
        assert!(waiter.woken().now_or_never().is_none());
        assert_eq!(waiters.keys(1), ["k"]);
        let second = waiters.join(&place(), None);
        drop(waiter);
        assert!(!waiters.is_empty());
        drop(second);
        assert!(waiters.is_empty() && waiters.keys(1).is_empty());
    }

    #[tokio::test]
    async fn a_poll_that_was_ended_wakes_its_place() {
        let waiters = Waiters::default();
        let mut waiter = waiters.join(&place(), None);
        waiter.is_poll(1);
        waiter.is_poll(2);
        assert_eq!(waiters.polls(), [2]);
        let woken = waiter.woken();
        waiters.wake_polls(&[1, 3]);
        waiters.wake_polls(&[2]);
        assert!(woken.now_or_never().is_some());
        let woken = waiter.woken();
        waiters.wake_polls(&[1, 3]);
        assert!(woken.now_or_never().is_none());
        drop(waiter);
        assert!(waiters.polls().is_empty());
    }

    #[tokio::test]
    async fn the_calls_of_a_session_are_woken_if_there_are_several() {
        let waiters = Waiters::default();
        let [opens, other, first] =
            [None, Some(8), Some(7)].map(|session| waiters.join(&place(), session));
        let alone = first.woken();
        first.wake_session();
        assert!(alone.now_or_never().is_none());
        let woken = [&opens, &other, &first].map(Waiter::woken);
        let second = waiters.join(&place(), Some(7));
        second.wake_session();
        let woken = woken.map(|one| one.now_or_never().is_some());
        assert_eq!(woken, [false, false, true]);
        drop(second);
        let alone = first.woken();
        first.wake_session();
        assert!(alone.now_or_never().is_none());
        drop((opens, other, first));
        assert!(waiters.is_empty() && waiters.inner.sessions.lock().is_empty());
    }
}

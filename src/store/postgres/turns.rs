//! Turns: of the calls of a place in this process, one at a time has a connection. The others would wait for the lock
//! of the place with one each, and leave none to the calls of other places.

use crate::store::streams::Place;
use crate::store::{ErrorKind, StoreError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as Turnstile, OwnedMutexGuard};
use tokio::time::timeout;

/// The places with calls under way.
#[derive(Default)]
pub(super) struct Turns {
    places: Mutex<HashMap<Place, Line>>,
}

struct Line {
    calls: usize,
    turn: Arc<Turnstile<()>>,
}

/// A call in the line of its place, until dropped.
struct InLine<'a> {
    turns: &'a Turns,
    place: &'a Place,
}

/// A call's turn, until dropped.
pub(super) struct Turn<'a> {
    // Goes before the line may be forgotten.
    _turn: OwnedMutexGuard<()>,
    _line: InLine<'a>,
}

impl Turns {
    /// Waits for a turn, in the order in which calls come.
    ///
    /// # Errors
    /// `Transient` if the calls before take longer than `limit`.
    pub(super) async fn take<'a>(
        &'a self,
        place: &'a Place,
        limit: Duration,
    ) -> Result<Turn<'a>, StoreError> {
        let (turn, line) = self.join(place);
        let Ok(turn) = timeout(limit, turn.lock_owned()).await else {
            let limit = humantime::format_duration(limit);
            let message = format!("other calls of the same key take longer than {limit}");
            return Err(StoreError::new(ErrorKind::Transient, message));
        };
        Ok(Turn {
            _turn: turn,
            _line: line,
        })
    }

    fn join<'a>(&'a self, place: &'a Place) -> (Arc<Turnstile<()>>, InLine<'a>) {
        let mut places = self.places.lock();
        let line = places.entry(place.clone()).or_insert_with(|| Line {
            calls: 0,
            turn: Arc::default(),
        });
        line.calls += 1;
        let turns = self;
        (Arc::clone(&line.turn), InLine { turns, place })
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut places = self.turns.places.lock();
        if let Some(line) = places.get_mut(self.place) {
            line.calls = line.calls.saturating_sub(1);
            if line.calls == 0 {
                places.remove(self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const LONG: Duration = Duration::from_secs(3_600);

    fn place(key: &str) -> Place {
        let key = key.to_owned();
        Place { stream: 1, key }
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_of_a_place_has_its_turn_at_a_time_and_nothing_stays() {
        let (turns, a, b) = (Turns::default(), place("a"), place("b"));
        let first = turns.take(&a, LONG).await.unwrap();
        let other = turns.take(&b, LONG).now_or_never();
        assert!(other.is_some_and(|turn| turn.is_ok()), "of another place");
        let refused = turns.take(&a, Duration::from_secs(5)).await;
        let error = refused.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert!(error.to_string().contains("longer than 5s"), "{error}");
        let mut second = Box::pin(turns.take(&a, LONG));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let second = second.await.unwrap();
        assert!(turns.take(&a, LONG).now_or_never().is_none());
        assert_eq!(turns.places.lock().len(), 1);
        drop(second);
        assert!(turns.places.lock().is_empty());
    }
}

//! Runs that their handlers complete in the transaction of an effect: the effect happens exactly once.

use super::child::Reactor;
use super::effects::{Effects, End};
use super::observing::{RunRow, start};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use eclusa::reactions::{CompleteError, HandlerError, Reaction, Reactions, Run};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

fn failed(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::Failed(error.to_string())
}

on_both_stores! {
    an_effect_that_is_rolled_back_is_had_at_the_next_attempt,
    the_attempt_that_commits_first_is_the_only_one,
    a_process_that_has_lost_its_lease_has_no_effect,
    an_effect_is_had_once_whenever_the_process_dies,
    a_past_event_that_is_completed_stays_processed,
}

/// A reaction to all events, past ones too, with an effect for each.
fn to_all(effects: &Effects) -> Reaction {
    let effects = effects.clone();
    let handler = move |run: Run| {
        let effects = effects.clone();
        async move { effects.complete(&run, End::Commit).await.map_err(failed) }
    };
    Reaction::new("effects").on("*", handler).from_beginning()
}

async fn a_past_event_that_is_completed_stays_processed(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    place.write(vec![event(), event(), event()]).await;
    let running = start(place, Reactions::new().react(to_all(&effects))).await;
    place.ended(3).await;
    running.stop().await;
    assert_eq!(
        place
            .number("SELECT count(*) AS n FROM user_interactions WHERE processed")
            .await,
        3
    );
}

async fn an_effect_that_is_rolled_back_is_had_at_the_next_attempt(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let handler = {
        let effects = effects.clone();
        move |run: Run| {
            let effects = effects.clone();
            async move {
                // Its own error, or one that it keeps to itself.
                let silent = run.event.event_type == "silent";
                let end = match run.attempt {
                    1 | 2 => End::RollBack,
                    _ => End::Commit,
                };
                match effects.complete(&run, end).await {
                    Err(_) if silent => Ok(()),
                    done => done.map_err(failed),
                }
            }
        }
    };
    let reaction = Reaction::new("effects")
        .on("*", handler)
        .backoff(Duration::from_millis(10), Duration::from_millis(50));
    let running = start(place, Reactions::new().react(reaction)).await;
    place
        .write(vec![event(), typed("silent"), event(), typed("silent")])
        .await;
    let runs = place.ended(4).await;
    let third = |run: &RunRow| (run.state.as_str(), run.attempts) == ("succeeded", 3);
    assert!(runs.iter().all(third), "{runs:?}");
    assert_eq!(effects.done().await.len(), 4);
    place.processed(4, 0).await;
    running.stop().await;
}

async fn the_attempt_that_commits_first_is_the_only_one(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (effects, refused) = (effects.clone(), Arc::clone(&refused));
        move |run: Run| {
            let (effects, refused) = (effects.clone(), Arc::clone(&refused));
            async move {
                let attempts = [run.clone(), run.clone(), run.clone()];
                let attempts = attempts
                    .each_ref()
                    .map(|run| effects.complete(run, End::Commit));
                for done in futures::future::join_all(attempts).await {
                    match done {
                        Err(CompleteError::Decided(_)) => refused.fetch_add(1, Ordering::SeqCst),
                        Err(error) => return Err(failed(error)),
                        Ok(()) => 0,
                    };
                }
                Ok(())
            }
        }
    };
    let reaction = Reaction::new("effects").on("*", handler);
    let running = start(place, Reactions::new().react(reaction)).await;
    place.write((0..10).map(|_| event()).collect()).await;
    let runs = place.ended(10).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    eventually(SOON, "all others are refused", async || {
        (refused.load(Ordering::SeqCst) == 20).then_some(())
    })
    .await;
    assert_eq!(effects.done().await.len(), 10);
    place.processed(10, 0).await;
    running.stop().await;
}

async fn a_process_that_has_lost_its_lease_has_no_effect(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let (begun, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let late = Arc::new(parking_lot::Mutex::new(Vec::new()));
    // The first three attempts go on with what they have begun when the lane has become another's.
    let handler = {
        let (effects, late) = (effects.clone(), Arc::clone(&late));
        let (begun, held) = (Arc::clone(&begun), Arc::clone(&held));
        let calls = Arc::new(AtomicUsize::new(0));
        move |run: Run| {
            let (effects, late) = (effects.clone(), Arc::clone(&late));
            let (begun, held) = (Arc::clone(&begun), Arc::clone(&held));
            let is_late = calls.fetch_add(1, Ordering::SeqCst) < 3;
            async move {
                if !is_late {
                    return effects.complete(&run, End::Commit).await.map_err(failed);
                }
                let going_on = tokio::spawn(async move {
                    begun.add_permits(1);
                    held.acquire().await.unwrap().forget();
                    let done = effects.complete(&run, End::Commit).await;
                    late.lock().push(done.map_err(|error| error.to_string()));
                });
                let _ = going_on.await;
                Ok(())
            }
        }
    };
    let reaction = || Reaction::new("effects").on("*", handler.clone());
    let first = start(place, Reactions::new().react(reaction())).await;
    place.write((0..3).map(|_| event()).collect()).await;
    begun.acquire_many(3).await.unwrap().forget();
    let second = start(place, Reactions::new().react(reaction())).await;
    place.take_lease("follower effects:0").await;
    place.ended(3).await;
    held.add_permits(3);
    let late = eventually(SOON, "the late ones have their answer", async || {
        let late = late.lock().clone();
        (late.len() == 3).then_some(late)
    })
    .await;
    let refused = |done: &Result<(), String>| {
        done.as_ref()
            .is_err_and(|error| error.contains("has an outcome already"))
    };
    assert!(late.iter().all(refused), "{late:?}");
    assert_eq!(effects.done().await.len(), 3);
    place.processed(3, 0).await;
    first.stop().await;
    second.stop().await;
}

impl Place {
    /// Has a lease run out, in whichever process.
    pub async fn take_lease(&self, name: &str) {
        let until = match self.url {
            Some(_) => "clock_timestamp()",
            None => "0",
        };
        let taken = format!(
            "UPDATE leases SET token = token + 1, holder = NULL, until = {until} \
             WHERE name = '{name}' RETURNING token AS n"
        );
        self.number(&taken).await;
    }
}

async fn an_effect_is_had_once_whenever_the_process_dies(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let mut events: Vec<_> = (0..11).map(|_| event()).collect();
    events[4] = typed("dies");
    place.write(events).await;
    // First attempts, and then, alone, the first claim of the one that has died.
    Reactor::start(place, End::DieBeforeCommit).dies().await;
    Reactor::start(place, End::DieAfterCommit).dies().await;
    let last = Reactor::start(place, End::Commit);
    place.ended(11).await;
    drop(last);
    place.write(vec![typed("dies"), event()]).await;
    Reactor::start(place, End::DieAfterCommit).dies().await;
    let _last = Reactor::start(place, End::Commit);
    let runs = place.ended(13).await;
    let once = |run: &RunRow| (run.state.as_str(), run.attempts) == ("succeeded", 1);
    assert!(runs.iter().all(once), "{runs:?}");
    let mut done = effects.done().await;
    done.sort_unstable();
    done.dedup();
    assert_eq!((done.len(), effects.done().await.len()), (13, 13));
    place.processed(13, 0).await;
}

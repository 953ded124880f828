//! The mark `processed` of events that no process reacts to for a while, or that a reaction takes long for.

use super::observing::{Calls, start};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use eclusa::followers::Followers;
use eclusa::metrics::Metrics;
use eclusa::reactions::{Reaction, Reactions, Run};
use std::sync::Arc;
use tokio::sync::Semaphore;

fn reactions(calls: &Calls) -> Reactions {
    let calls = calls.clone();
    Reactions::new().react(Reaction::new("count").on("page.*", move |run: Run| {
        calls.add(&run);
        async { Ok(()) }
    }))
}

/// Declares the reaction, and writes an event before any process runs it.
async fn declared_before_it_runs(place: &Place, calls: &Calls) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let declared = reactions(calls).declare(&place.store, Followers::new(), &metrics);
    declared.await.unwrap();
    place.store.refresh_awaited().await.unwrap();
    place.write(vec![event()]).await;
    place.processed(0, 1).await;
}

/// The same beside a reaction to `*.paid` whose handler waits for a permit of each run.
fn beside_one_that_waits(
    calls: &Calls,
    permits: &Arc<Semaphore>,
    from_beginning: bool,
) -> Reactions {
    let permits = Arc::clone(permits);
    let paid = Reaction::new("paid")
        .on("*.paid", move |_: Run| {
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.unwrap().forget();
                Ok(())
            }
        })
        .timeout(10 * SOON);
    reactions(calls).react(match from_beginning {
        true => paid.from_beginning(),
        false => paid,
    })
}

/// Writes an event for the one reaction, one for both, and one for the other.
async fn write_one_of_each(place: &Place) {
    let types = ["page.view", "page.paid", "order.paid"];
    place.write(types.map(typed).to_vec()).await;
}

/// Waits until the follower that marks shows that events wait, or that none does.
async fn shows(place: &Place, waiting: bool) {
    let wanted = format!("it is {waiting} that events wait for their marks");
    eventually(SOON, &wanted, async || {
        let end = place.store.number_commits().await.unwrap().end;
        let marks = place.record("reactions:processed").await;
        ((marks.position < end) == waiting).then_some(())
    })
    .await;
}

on_both_stores! {
    a_reaction_that_takes_long_holds_back_its_own_events,
    one_that_begins_with_the_first_event_holds_back_its_own_events,
    a_reaction_that_no_process_runs_holds_back_its_own_events,
    an_event_between_declaration_and_start_is_marked,
    events_of_a_removed_reaction_are_marked,
}

async fn an_event_between_declaration_and_start_is_marked(place: &Place) {
    let calls = Calls::default();
    declared_before_it_runs(place, &calls).await;
    let running = start(place, reactions(&calls)).await;
    place.processed(1, 0).await;
    assert_eq!(calls.all().len(), 1);
    running.stop().await;
}

async fn events_of_a_removed_reaction_are_marked(place: &Place) {
    let calls = Calls::default();
    declared_before_it_runs(place, &calls).await;
    let removed = place.store.remove_reaction("count").await.unwrap();
    assert_eq!(removed, eclusa::store::followers::Commanded::Done);
    // By a process without reactions.
    let running = start(place, Reactions::new()).await;
    place.processed(1, 0).await;
    assert!(calls.all().is_empty());
    running.stop().await;
}

async fn a_reaction_that_takes_long_holds_back_its_own_events(place: &Place) {
    let (calls, permits) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let running = start(place, beside_one_that_waits(&calls, &permits, false)).await;
    place.store.refresh_awaited().await.unwrap();
    for round in 1..=3 {
        write_one_of_each(place).await;
        place.processed(round, 2 * round).await;
    }
    shows(place, true).await;
    permits.add_permits(6);
    place.processed(9, 0).await;
    shows(place, false).await;
    running.stop().await;
}

async fn one_that_begins_with_the_first_event_holds_back_its_own_events(place: &Place) {
    let (calls, permits) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let running = start(place, reactions(&calls)).await;
    place.store.refresh_awaited().await.unwrap();
    write_one_of_each(place).await;
    place.processed(3, 0).await;
    shows(place, false).await;
    running.stop().await;
    let running = start(place, beside_one_that_waits(&calls, &permits, true)).await;
    place.store.refresh_awaited().await.unwrap();
    write_one_of_each(place).await;
    place.processed(4, 2).await;
    permits.add_permits(4);
    place.processed(6, 0).await;
    shows(place, false).await;
    running.stop().await;
}

async fn a_reaction_that_no_process_runs_holds_back_its_own_events(place: &Place) {
    let (calls, permits) = (Calls::default(), Arc::new(Semaphore::new(2)));
    let both = || beside_one_that_waits(&calls, &permits, false);
    start(place, both()).await.stop().await;
    place.store.refresh_awaited().await.unwrap();
    let running = start(place, reactions(&calls)).await;
    write_one_of_each(place).await;
    place.processed(1, 2).await;
    shows(place, true).await;
    running.stop().await;
    let running = start(place, both()).await;
    place.processed(3, 0).await;
    shows(place, false).await;
    running.stop().await;
}

//! The mark `processed` of events that no process reacts to for a while.

use super::observing::{Calls, start};
use crate::followers::{Place, on_both_stores};
use crate::store_contract::event;
use eclusa::followers::Followers;
use eclusa::metrics::Metrics;
use eclusa::reactions::{Reaction, Reactions, Run};
use std::sync::Arc;

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

on_both_stores! {
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

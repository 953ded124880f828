//! Lanes that another process declares while one runs.

use super::killed::{hook, send};
use super::observing::{Calls, start};
use super::starts::Starts;
use crate::followers::{Place, SOON, on_both_stores};
use crate::harness::{App, eventually};
use crate::store_contract::event;
use eclusa::followers::Followers;
use eclusa::http::reactions::view::ReactionView;
use eclusa::metrics::Metrics;
use eclusa::reactions::runs::overview;
use eclusa::reactions::{Reaction, Reactions, Run};
use std::collections::BTreeSet;
use std::sync::Arc;

on_both_stores! {
    lanes_that_are_declared_later_run_without_a_restart,
}

async fn lanes_that_are_declared_later_run_without_a_restart(place: &Place) {
    let calls = Calls::default();
    let seen = calls.clone();
    let reactions = |lanes| {
        let seen = seen.clone();
        let count = Reaction::new("count").on("page.*", move |run: Run| {
            seen.add(&run);
            async { Ok(()) }
        });
        Reactions::new().react(count.lanes(lanes))
    };
    let running = start(place, reactions(1)).await;
    place.write((0..20).map(|_| event()).collect()).await;
    place.ended(20).await;
    // It ends as soon as it has declared.
    let metrics = Arc::new(Metrics::new().unwrap());
    let declared = reactions(3).declare(&place.store, Followers::new(), &metrics);
    drop(declared.await.unwrap());
    place.write((0..60).map(|_| event()).collect()).await;
    place.ended(80).await;
    let ids: BTreeSet<_> = calls.all().into_iter().map(|(id, _)| id).collect();
    assert_eq!((calls.all().len(), ids.len()), (80, 80), "each once");
    place.processed(80, 0).await;
    running.stop().await;
}

/// The process of each lane, by number, as operators see it.
async fn run_by(place: &Place) -> Vec<Option<String>> {
    let shown = overview(&*place.store, "hook").await.unwrap().unwrap();
    let lanes = ReactionView::from(shown).run_by;
    let numbers: Vec<u32> = lanes.iter().map(|lane| lane.lane).collect();
    assert_eq!(numbers, (0..lanes.len() as u32).collect::<Vec<_>>());
    lanes.into_iter().map(|lane| lane.process).collect()
}

/// Waits until this process runs three lanes.
async fn runs_all(place: &Place, app: &App) {
    let own = format!("/{}/", app.pid());
    eventually(SOON, "one process runs all lanes", async || {
        let lanes = run_by(place).await;
        let is_own = |by: &Option<String>| by.as_ref().is_some_and(|by| by.contains(&own));
        (lanes.len() == 3 && lanes.iter().all(is_own)).then_some(())
    })
    .await;
}

async fn with_lanes(place: &Place, starts: &Starts, lanes: u32) -> App {
    let mut reactions = hook(starts);
    reactions[0]["lanes"] = lanes.into();
    let app = place.app().set("reactions", reactions).start().await;
    app.wait_ready().await;
    app
}

#[actix_rt::test]
async fn a_process_takes_over_lanes_that_a_killed_one_has_added() {
    let place = Place::postgres().await;
    let starts = Starts::count(|_, _| 204).await;
    let mut first = with_lanes(&place, &starts, 1).await;
    send(&first, 0, 20).await;
    assert_eq!(place.all_succeeded().await, 20);
    // So that the other one gets all lanes.
    first.pause();
    let mut second = with_lanes(&place, &starts, 3).await;
    runs_all(&place, &second).await;
    send(&second, 20, 40).await;
    assert_eq!(place.all_succeeded().await, 60);
    second.kill9();
    eventually(SOON, "no process runs a lane", async || {
        let lanes = run_by(&place).await;
        (lanes.len() == 3 && lanes.iter().all(Option::is_none)).then_some(())
    })
    .await;
    first.resume();
    send(&first, 60, 60).await;
    assert_eq!(place.all_succeeded().await, 120);
    runs_all(&place, &first).await;
    assert_eq!(starts.total(), 120, "each once");
    place.processed(120, 0).await;
}

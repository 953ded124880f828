//! Reactions that are declared otherwise, and keys of runs that have ended.

use super::observing::{Calls, start};
use crate::followers::{Place, on_both_stores};
use crate::store_contract::event;
use eclusa::event::Event;
use eclusa::reactions::{Reaction, Reactions, Run};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

on_both_stores! {
    what_was_ordered_stays_so_under_another_declaration,
    a_run_that_has_failed_keeps_no_like_away,
}

fn with(data: &str) -> Event {
    Event {
        event_data: RawValue::from_string(data.to_owned()).unwrap(),
        ..event()
    }
}

async fn what_was_ordered_stays_so_under_another_declaration(place: &Place) {
    let calls = Calls::default();
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, now, highest) = (calls.clone(), Arc::clone(&at_once), Arc::clone(&most));
    let reaction = move || {
        let (seen, now, highest) = (seen.clone(), Arc::clone(&now), Arc::clone(&highest));
        Reaction::new("count").on("page.*", move |run: Run| {
            seen.add(&run);
            let (now, highest) = (Arc::clone(&now), Arc::clone(&highest));
            async move {
                highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    let ordered = Reactions::new().react(reaction().order_by("eventData.k"));
    start(place, ordered).await.stop().await;
    place
        .write((0..4).map(|_| with(r#"{"k":"one"}"#)).collect())
        .await;
    // The last declaration drops the order, and has another key.
    let unique = Reactions::new().react(reaction().unique("eventData.k + id"));
    let running = start(place, unique).await;
    let runs = place.ended(4).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    assert_eq!(most.load(Ordering::SeqCst), 1, "one after the other");
    assert_eq!(calls.all().len(), 4);
    running.stop().await;
}

async fn a_run_that_has_failed_keeps_no_like_away(place: &Place) {
    let calls = Calls::default();
    let seen = calls.clone();
    let reaction = Reaction::new("count")
        .on("page.*", move |run: Run| {
            seen.add(&run);
            async { Ok(()) }
        })
        .unique("eventData.k")
        .at("eventData.at");
    let running = start(place, Reactions::new().react(reaction)).await;
    let bad = with(r#"{"k":"one","at":"rubbish"}"#);
    let good = with(r#"{"k":"one","at":"2020-01-01T00:00:00Z"}"#);
    place.write(vec![bad, good]).await;
    let runs = place.ended(2).await;
    let states: Vec<&str> = runs.iter().map(|run| run.state.as_str()).collect();
    assert_eq!(states, ["failed", "succeeded"], "{runs:?}");
    running.stop().await;
}

//! Reactions that run: each event gets its outcome, on both stores.

use super::observing::{Calls, Number, start};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use eclusa::event::Event;
use eclusa::reactions::{HandlerError, Reaction, Reactions, Run};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

fn reaction(calls: &Calls) -> Reaction {
    let calls = calls.clone();
    Reaction::new("count").on("page.*", move |run: Run| {
        calls.add(&run);
        async { Ok(()) }
    })
}

fn quick(reaction: Reaction) -> Reaction {
    reaction.backoff(Duration::from_millis(20), Duration::from_millis(50))
}

fn of_user(user: &str) -> Event {
    Event {
        user_id: Some(user.to_owned()),
        ..event()
    }
}

on_both_stores! {
    each_event_is_handled_once,
    what_fails_is_tried_again,
    what_fails_always_has_failed,
    a_panic_and_a_handler_that_hangs_are_failures,
    discard_cancel_and_snooze_are_obeyed,
    a_condition_selects_events,
    one_key_keeps_its_order,
    a_like_of_an_open_run_is_dropped,
    what_is_delayed_runs_later,
    lanes_share_the_events_and_change_at_a_position,
    two_processes_share_the_lanes,
    past_events_are_handled_if_asked_for,
    what_an_ended_process_has_begun_runs_alone,
    two_reactions_complete_an_event,
}

async fn each_event_is_handled_once(place: &Place) {
    place.write(vec![event(), event()]).await;
    let calls = Calls::default();
    let running = start(place, Reactions::new().react(reaction(&calls))).await;
    for size in [1, 1, 700, 3] {
        place.write((0..size).map(|_| event()).collect()).await;
    }
    place.write(vec![typed("other")]).await;
    let runs = place.ended(705).await;
    assert!(
        runs.iter()
            .all(|run| (run.state.as_str(), run.attempts) == ("succeeded", 1))
    );
    place.processed(708, 0).await;
    running.stop().await;
    // Another process goes on behind it.
    let running = start(place, Reactions::new().react(reaction(&calls))).await;
    place.write(vec![event()]).await;
    place.ended(706).await;
    running.stop().await;
    assert_eq!(calls.all().len(), 706);
    assert_eq!(
        place
            .number("SELECT CAST(sum(succeeded) AS BIGINT) AS n FROM reaction_counts")
            .await,
        706
    );
    assert_eq!(
        place
            .number("SELECT count(*) AS n FROM reaction_queue")
            .await,
        0
    );
}

async fn what_fails_is_tried_again(place: &Place) {
    let calls = Calls::default();
    let seen = calls.clone();
    let flaky = Reaction::new("flaky").on("*", move |run: Run| {
        seen.add(&run);
        let fails = run.attempt < 3 && run.event.user_id.as_deref() == Some("fails");
        async move {
            match fails {
                true => Err(HandlerError::Failed("not yet".to_owned())),
                false => Ok(()),
            }
        }
    });
    let running = start(place, Reactions::new().react(quick(flaky))).await;
    let events: Vec<Event> = (0..60)
        .map(|n| of_user(if n % 3 == 0 { "fails" } else { "works" }))
        .collect();
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    place.write(events).await;
    let runs = place.ended(60).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(run.attempts, if n % 3 == 0 { 3 } else { 1 }, "{n} {run:?}");
    }
    place.processed(60, 0).await;
    assert_eq!(calls.of(ids[0]), [1, 2, 3]);
    assert_eq!(calls.of(ids[1]), [1]);
    running.stop().await;
}

async fn what_fails_always_has_failed(place: &Place) {
    let fails = |_| async { Err(HandlerError::Failed("never".to_owned())) };
    let broken = Reaction::new("broken").on("bad", fails).max_attempts(2);
    let running = start(place, Reactions::new().react(quick(broken))).await;
    place.write(vec![typed("bad"), event()]).await;
    let runs = place.ended(1).await;
    let failed = ("failed", 2, Some("never"));
    assert_eq!(
        (
            runs[0].state.as_str(),
            runs[0].attempts,
            runs[0].error.as_deref()
        ),
        failed
    );
    place.processed(1, 1).await;
    running.stop().await;
}

async fn a_panic_and_a_handler_that_hangs_are_failures(place: &Place) {
    let handler = |run: Run| async move {
        if run.event.event_type == "panic" {
            panic!("at this one");
        }
        std::future::pending().await
    };
    let broken = Reaction::new("broken")
        .on("panic", handler)
        .also_on("hang")
        .max_attempts(1)
        .timeout(Duration::from_millis(100));
    let running = start(place, Reactions::new().react(broken)).await;
    place.write(vec![typed("panic"), typed("hang")]).await;
    let runs = place.ended(2).await;
    let error = |n: usize| runs[n].error.clone().unwrap();
    assert!(error(0).contains("panicked: at this one"), "{}", error(0));
    assert!(
        error(1).contains("did not end within 100ms"),
        "{}",
        error(1)
    );
    running.stop().await;
}

async fn discard_cancel_and_snooze_are_obeyed(place: &Place) {
    let calls = Calls::default();
    let seen = calls.clone();
    let snoozes = Arc::new(AtomicUsize::new(0));
    let handler = move |run: Run| {
        seen.add(&run);
        let snoozes = Arc::clone(&snoozes);
        async move {
            match run.event.event_type.as_str() {
                "discard" => Err(HandlerError::Discard("useless".to_owned())),
                "cancel" => Err(HandlerError::Cancel("not wanted".to_owned())),
                _ if snoozes.fetch_add(1, Ordering::SeqCst) < 3 => {
                    Err(HandlerError::Snooze(Duration::from_millis(10)))
                }
                _ => Ok(()),
            }
        }
    };
    let reaction = Reaction::new("r").on("*", handler).max_attempts(1);
    let running = start(place, Reactions::new().react(reaction)).await;
    place
        .write(vec![typed("discard"), typed("cancel"), typed("snooze")])
        .await;
    let runs = place.ended(3).await;
    let shown: Vec<(&str, i32)> = runs
        .iter()
        .map(|run| (run.state.as_str(), run.attempts))
        .collect();
    assert_eq!(shown, [("failed", 1), ("cancelled", 1), ("succeeded", 1)]);
    assert_eq!(calls.all().len(), 6);
    place.processed(2, 1).await;
    running.stop().await;
}

async fn a_condition_selects_events(place: &Place) {
    let calls = Calls::default();
    let reaction = reaction(&calls).when("userId == 'a'");
    let running = start(place, Reactions::new().react(reaction)).await;
    place
        .write(vec![of_user("a"), of_user("b"), of_user("a")])
        .await;
    place.ended(2).await;
    place.processed(3, 0).await;
    running.stop().await;
}

async fn one_key_keeps_its_order(place: &Place) {
    let calls: Arc<Mutex<Vec<Uuid>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let handler = move |run: Run| {
        let seen = Arc::clone(&seen);
        async move {
            // Some fail, at their first attempt or at their second.
            let lot = run.event.event_id.as_bytes()[15] % 4;
            if lot < 2 && run.attempt <= u32::from(lot) + 1 {
                return Err(HandlerError::Failed("later".to_owned()));
            }
            tokio::task::yield_now().await;
            seen.lock().push(run.event.event_id);
            Ok(())
        }
    };
    let reaction = quick(Reaction::new("ordered").on("*", handler))
        .order_by("userId")
        .lanes(2);
    let running = start(place, Reactions::new().react(reaction)).await;
    let mut expected: HashMap<String, Vec<Uuid>> = HashMap::new();
    for _ in 0..4 {
        let events: Vec<Event> = (0..50).map(|n| of_user(&format!("u{}", n % 5))).collect();
        for event in &events {
            let user = event.user_id.clone().unwrap();
            expected.entry(user).or_default().push(event.event_id);
        }
        place.write(events).await;
    }
    let runs = place.ended(200).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"));
    let seen = calls.lock().clone();
    for (user, ids) in expected {
        let of_user: Vec<Uuid> = seen.iter().copied().filter(|id| ids.contains(id)).collect();
        assert_eq!(of_user, ids, "{user}");
    }
    running.stop().await;
}

async fn a_like_of_an_open_run_is_dropped(place: &Place) {
    let calls = Calls::default();
    let reaction = reaction(&calls)
        .unique("userId")
        .delay(Duration::from_secs(2));
    let running = start(place, Reactions::new().react(reaction)).await;
    place
        .write(vec![of_user("a"), of_user("a"), of_user("b")])
        .await;
    eventually(SOON, "two wait and one is dropped", async || {
        (place.runs().await.len() == 3).then_some(())
    })
    .await;
    place.write(vec![of_user("a")]).await;
    let runs = place.ended(4).await;
    let states: Vec<&str> = runs.iter().map(|run| run.state.as_str()).collect();
    assert_eq!(states, ["succeeded", "cancelled", "succeeded", "cancelled"]);
    assert!(
        runs[1]
            .error
            .as_deref()
            .unwrap()
            .contains("same unique key \"a\" is open")
    );
    assert_eq!(calls.all().len(), 2);
    place.processed(4, 0).await;
    // What comes after its end is none of its likes.
    place.write(vec![of_user("a")]).await;
    place.ended(5).await;
    assert_eq!(calls.all().len(), 3);
    running.stop().await;
}

async fn what_is_delayed_runs_later(place: &Place) {
    let calls = Calls::default();
    let delayed = reaction(&calls).delay(Duration::from_secs(3));
    let running = start(place, Reactions::new().react(delayed)).await;
    place.write(vec![event()]).await;
    eventually(SOON, "it is scheduled", async || {
        (place.runs().await.first()?.state == "open").then_some(())
    })
    .await;
    place.processed(0, 1).await;
    let runs = place.ended(1).await;
    assert_eq!((runs[0].state.as_str(), runs[0].attempts), ("succeeded", 1));
    assert_eq!(calls.all().len(), 1);
    running.stop().await;
}

async fn lanes_share_the_events_and_change_at_a_position(place: &Place) {
    let calls = Calls::default();
    let mut written = 0;
    for lanes in [1, 3, 2] {
        let running = start(place, Reactions::new().react(reaction(&calls).lanes(lanes))).await;
        for _ in 0..3 {
            place.write((0..40).map(|_| event()).collect()).await;
            written += 40;
        }
        place.ended(written).await;
        running.stop().await;
        // What comes while none runs is for the next declaration to share out, or for the one before.
        place.write((0..40).map(|_| event()).collect()).await;
        written += 40;
    }
    let running = start(place, Reactions::new().react(reaction(&calls).lanes(4))).await;
    place.ended(written).await;
    place.processed(written as i64, 0).await;
    running.stop().await;
    assert_eq!(calls.all().len(), written);
}

async fn two_processes_share_the_lanes(place: &Place) {
    let calls = Calls::default();
    let reactions = || Reactions::new().react(reaction(&calls).lanes(4));
    let first = start(place, reactions()).await;
    let second = start(place, reactions()).await;
    place.write((0..300).map(|_| event()).collect()).await;
    place.ended(300).await;
    first.stop().await;
    place.write((0..300).map(|_| event()).collect()).await;
    place.ended(600).await;
    second.stop().await;
    assert_eq!(calls.all().len(), 600);
}

async fn past_events_are_handled_if_asked_for(place: &Place) {
    let calls = Calls::default();
    place.write((0..50).map(|_| event()).collect()).await;
    let running = start(
        place,
        Reactions::new().react(reaction(&calls).from_beginning()),
    )
    .await;
    place.ended(50).await;
    place.processed(50, 0).await;
    running.stop().await;
    assert_eq!(calls.all().len(), 50);
}

/// The lane's last position says that handlers were begun behind it, as a process leaves it that is killed.
async fn what_an_ended_process_has_begun_runs_alone(place: &Place) {
    let calls = Calls::default();
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let make = || {
        let (calls, at_once, most) = (calls.clone(), Arc::clone(&at_once), Arc::clone(&most));
        Reaction::new("count")
            .concurrency(3)
            .on("page.*", move |run: Run| {
                calls.add(&run);
                let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
                async move {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            })
    };
    let running = start(place, Reactions::new().react(make())).await;
    place.write(vec![event()]).await;
    place.ended(1).await;
    running.stop().await;
    place.write((0..3).map(|_| event()).collect()).await;
    let begun = "UPDATE follower_positions SET begun = 3 WHERE follower = 'count:0' RETURNING n";
    assert!(!place.query::<Number>(begun).await.is_empty());
    most.store(0, Ordering::SeqCst);
    let running = start(place, Reactions::new().react(make())).await;
    let runs = place.ended(4).await;
    assert!(
        runs.iter()
            .all(|run| run.state == "succeeded" && run.attempts == 1)
    );
    assert_eq!((most.load(Ordering::SeqCst), calls.all().len()), (1, 4));
    running.stop().await;
}

async fn two_reactions_complete_an_event(place: &Place) {
    let calls = Calls::default();
    let waits = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&waits);
    let slow = Reaction::new("slow").on("page.*", move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    let running = start(place, Reactions::new().react(reaction(&calls)).react(slow)).await;
    place.write(vec![event(), typed("other")]).await;
    place.ended(1).await;
    place.processed(1, 1).await;
    waits.add_permits(1);
    place.ended(2).await;
    place.processed(2, 0).await;
    running.stop().await;
}

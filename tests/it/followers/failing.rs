//! Events that a follower cannot apply.

use super::*;
use eclusa::store::dead_letters::{
    DeadLetterFilter, DeadLetterOrder, DeadLetterState, DeadLetterSummary, Replayed,
};
use eclusa::store::followers::{Commanded, FollowerCommand};

on_both_stores! {
    a_bad_event_stops_its_follower_and_no_other,
    a_bad_event_alone_becomes_a_dead_letter,
    a_dead_letter_is_applied_once_when_it_is_replayed,
    a_panic_is_the_events_fault,
    a_follower_that_fails_at_everything_stops,
    a_rebuild_leaves_no_dead_letter_to_be_applied_twice,
    a_replay_that_fails_leaves_the_follower_running,
}

async fn letters(place: &Place) -> Vec<DeadLetterSummary> {
    let (filter, order) = (DeadLetterFilter::default(), DeadLetterOrder::Oldest);
    place
        .store
        .list_letters(&filter, order, None, 100)
        .await
        .unwrap()
}

async fn a_bad_event_stops_its_follower_and_no_other(place: &Place) {
    let bad = typed("bad");
    let mut events: Vec<Event> = (0..40).map(|_| event()).collect();
    events.insert(23, bad.clone());
    place.write(events.clone()).await;
    let failing = Seen::new(Beside::Violate);
    let other = Seen {
        name: "other",
        subscription: Subscription::to(["bad"]),
        ..Seen::new(Beside::Nothing)
    };
    let fixed = Arc::clone(&failing.fixed);
    let running = Running::start(place, Followers::new().project(failing).project(other)).await;
    let broken = place.state(NAME, FollowerState::Broken).await;
    let reason = broken.reason.unwrap();
    assert!(
        reason.contains(&bad.event_id.to_string()) && reason.contains("type bad"),
        "{reason}"
    );
    place.caught_up("other").await;
    let mut ids: Vec<Uuid> = events[..23].iter().map(|event| event.event_id).collect();
    let mut seen = Seen::ids(place).await;
    // The other one's only event, wherever it came.
    let others = seen.iter().position(|id| *id == bad.event_id).unwrap();
    seen.remove(others);
    assert_eq!(seen, ids, "all before it is applied");
    fixed.store(true, Ordering::SeqCst);
    let resumed = place
        .store
        .command(NAME, FollowerCommand::Resume)
        .await
        .unwrap();
    assert_eq!(resumed, Commanded::Done);
    running.followers.watch.command();
    place.caught_up(NAME).await;
    let mut seen = Seen::ids(place).await;
    seen.remove(others);
    ids.extend(events[23..].iter().map(|event| event.event_id));
    assert_eq!(seen, ids);
    assert!(letters(place).await.is_empty());
    running.stop().await;
}

async fn a_bad_event_alone_becomes_a_dead_letter(place: &Place) {
    let mut events: Vec<Event> = (0..200).map(|_| event()).collect();
    let bad = [typed("bad"), typed("bad")];
    events.insert(77, bad[0].clone());
    events.insert(150, bad[1].clone());
    place.write(events).await;
    let mut seen = Seen::new(Beside::Refuse);
    seen.subscription = seen.subscription.dead_lettering();
    let running = Running::start(place, Followers::new().project(seen)).await;
    place.caught_up(NAME).await;
    let mut expected = place.log().await;
    expected.retain(|id| bad.iter().all(|bad| bad.event_id != *id));
    assert_eq!(Seen::ids(place).await, expected);
    let letters = letters(place).await;
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        assert_eq!(
            (letter.failure.cause.as_str(), letter.origin.as_str()),
            ("follower", NAME)
        );
        assert_eq!(letter.failure.error, "it is bad");
    }
    assert_eq!(
        running
            .starter
            .metrics
            .dead_lettered
            .with_label_values(&["follower"])
            .get(),
        2
    );
    running.stop().await;
}

async fn a_dead_letter_is_applied_once_when_it_is_replayed(place: &Place) {
    let bad = typed("bad");
    place.write(vec![event(), bad.clone(), event()]).await;
    let mut seen = Seen::new(Beside::Violate);
    seen.subscription = seen.subscription.dead_lettering();
    let fixed = Arc::clone(&seen.fixed);
    let running = Running::start(place, Followers::new().project(seen)).await;
    place.caught_up(NAME).await;
    let replay = async || {
        let letter = letters(place).await.remove(0);
        let sent = Replayed {
            id: letter.id,
            failed_at: letter.failure.at,
        };
        assert_eq!(
            place.store.request_replays(&[sent]).await.unwrap(),
            [letter.id]
        );
        running.followers.watch.command();
        eventually(SOON, "the replay is done", async || {
            (place.record(NAME).await.replays == 0).then_some(())
        })
        .await;
        letters(place).await.remove(0)
    };
    let again = replay().await;
    assert_eq!(again.state, DeadLetterState::Dead, "it fails again");
    assert_eq!(Seen::ids(place).await.len(), 2);
    fixed.store(true, Ordering::SeqCst);
    assert_eq!(replay().await.state, DeadLetterState::Replayed);
    let seen = Seen::ids(place).await;
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2], bad.event_id);
    assert_eq!(place.record(NAME).await.state, FollowerState::Running);
    running.stop().await;
}

async fn a_panic_is_the_events_fault(place: &Place) {
    let bad = typed("bad");
    place
        .write(vec![event(), event(), bad.clone(), event()])
        .await;
    let mut seen = Seen::new(Beside::Panic);
    seen.subscription = seen.subscription.dead_lettering();
    let running = Running::start(place, Followers::new().project(seen)).await;
    place.caught_up(NAME).await;
    assert_eq!(Seen::ids(place).await.len(), 3);
    assert_eq!(letters(place).await[0].event_id, Some(bad.event_id));
    running.stop().await;
}

/// Were each of them a dead letter, a wrong password in the follower's code would empty the log into
/// them.
async fn a_follower_that_fails_at_everything_stops(place: &Place) {
    place.write((0..100).map(|_| typed("bad")).collect()).await;
    let mut seen = Seen::new(Beside::Refuse);
    seen.subscription = seen.subscription.dead_lettering();
    let running = Running::start(place, Followers::new().project(seen)).await;
    let broken = place.state(NAME, FollowerState::Broken).await;
    let reason = broken.reason.unwrap();
    assert!(reason.contains("10 events in a row failed"), "{reason}");
    assert_eq!(letters(place).await.len(), 10);
    running.stop().await;
}

/// PostgreSQL undoes a transaction in which a statement has failed, whatever the code makes of it.
#[actix_rt::test]
async fn an_error_that_is_passed_over_loses_no_event() {
    let place = Place::postgres().await;
    let mut events: Vec<Event> = (0..20).map(|_| event()).collect();
    events.push(typed("bad"));
    place.write(events.clone()).await;
    let seen = Seen::new(Beside::PassOver);
    let fixed = Arc::clone(&seen.fixed);
    let running = Running::start(&place, Followers::new().project(seen)).await;
    place.state(NAME, FollowerState::Broken).await;
    assert_eq!(Seen::ids(&place).await.len(), 20);
    fixed.store(true, Ordering::SeqCst);
    let resumed = place.store.command(NAME, FollowerCommand::Resume).await;
    assert_eq!(resumed.unwrap(), Commanded::Done);
    place.caught_up(NAME).await;
    assert_eq!(Seen::ids(&place).await, place.log().await);
    running.stop().await;
}

/// A rebuild applies all events again, those of the dead letters among them.
async fn a_rebuild_leaves_no_dead_letter_to_be_applied_twice(place: &Place) {
    place.write(vec![event(), typed("bad"), event()]).await;
    let mut seen = Seen::new(Beside::Refuse);
    seen.subscription = seen.subscription.dead_lettering();
    let fixed = Arc::clone(&seen.fixed);
    let running = Running::start(place, Followers::new().project(seen)).await;
    place.caught_up(NAME).await;
    assert_eq!(letters(place).await.len(), 1);
    fixed.store(true, Ordering::SeqCst);
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: false,
    };
    let asked = place.store.command(NAME, rebuild).await.unwrap();
    assert_eq!(asked, Commanded::Done);
    running.followers.watch.command();
    eventually(SOON, "it is rebuilt", async || {
        (Seen::ids(place).await.len() == 3).then_some(())
    })
    .await;
    assert_eq!(Seen::ids(place).await, place.log().await);
    assert!(letters(place).await.is_empty());
    running.stop().await;
}

/// An event whose replay fails again and again holds up nothing else.
async fn a_replay_that_fails_leaves_the_follower_running(place: &Place) {
    place.write(vec![typed("bad"), event()]).await;
    let mut seen = Seen::new(Beside::Panic);
    seen.subscription = seen.subscription.dead_lettering();
    let running = Running::start(place, Followers::new().project(seen)).await;
    place.caught_up(NAME).await;
    let letter = letters(place).await.remove(0);
    let sent = Replayed {
        id: letter.id,
        failed_at: letter.failure.at,
    };
    let requested = place.store.request_replays(&[sent]).await.unwrap();
    assert_eq!(requested, [letter.id]);
    running.followers.watch.command();
    let later = event();
    place.write(vec![later.clone()]).await;
    running.followers.commits.raise();
    eventually(SOON, "what comes later is applied", async || {
        (Seen::ids(place).await.last() == Some(&later.event_id)).then_some(())
    })
    .await;
    assert_eq!(letters(place).await[0].state, DeadLetterState::Dead);
    running.stop().await;
}

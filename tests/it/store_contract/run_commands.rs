//! Commands to runs and to reactions, and what they make of events.

use super::reacting::{
    LONG, Reacting, again, are_processed, declaration, end_of, ended_as, is_processed, keyed, mark,
    queued, some_events, written,
};
use super::runs::{all, list, of};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use eclusa::store::commit_log::{LoggedEvent, Position};
use eclusa::store::followers::{Commanded, FollowerState, Start};
use eclusa::store::reactions::{Due, Ending, QueuedRun};
use eclusa::store::runs::{CancelledRun, ReopenedRun, RunOrder, RunState};
use eclusa::store::{ErrorKind, LeaseStore};
use std::time::Duration;

pub fn reopened(run: &LoggedEvent) -> ReopenedRun {
    ReopenedRun {
        position: run.position,
        event: run.event.clone(),
        order_key: None,
        unique_key: None,
        after: Duration::ZERO,
    }
}

async fn cancel(reacting: &Reacting<'_>, run: &LoggedEvent) -> CancelledRun {
    let store = &reacting.place.store;
    let cancelled = store.cancel_run(reacting.id, run.position, run.event.event_id, "not wanted");
    cancelled.await.unwrap()
}

on_both_stores! {
    a_run_is_cancelled_unless_it_is_running,
    the_next_run_of_a_key_follows_a_cancelled_one,
    an_ended_run_is_opened_again,
    a_run_with_an_order_key_waits_when_it_is_opened_again,
    a_run_with_a_key_waits_for_the_lane_when_it_is_opened_again,
    runs_of_one_unique_key_are_released_one_by_one,
    a_reaction_is_paused_with_its_lanes,
    a_removed_reaction_leaves_its_events_processed,
}

async fn a_run_is_cancelled_unless_it_is_running(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 5).await;
    mark(place, Position::START).await;
    // Before it was decided: what the lane then makes of it comes too late.
    assert_eq!(cancel(&reacting, &runs[0]).await, CancelledRun::Done);
    let cancelled = CancelledRun::Ended(RunState::Cancelled);
    assert_eq!(cancel(&reacting, &runs[0]).await, cancelled);
    reacting.end(&runs[..2], Ending::Succeeded).await;
    let first = of(place, &runs[0]).await;
    assert_eq!((first.state, first.attempts), (RunState::Cancelled, 0));
    assert_eq!(first.error.as_deref(), Some("not wanted"));
    let succeeded = CancelledRun::Ended(RunState::Succeeded);
    assert_eq!(cancel(&reacting, &runs[1]).await, succeeded);
    reacting
        .queue(
            runs[2..]
                .iter()
                .map(|run| queued(run, Duration::ZERO))
                .collect(),
        )
        .await;
    let end = end_of(place).await;
    reacting.pass(end).await;
    mark(place, end).await;
    assert_eq!(cancel(&reacting, &runs[2]).await, CancelledRun::Done);
    assert!(is_processed(place, &runs[2]).await);
    // One that is claimed, and again when it waits for its next attempt.
    let claimed = reacting.claim(LONG).await.runs;
    assert_eq!(claimed.len(), 2);
    assert_eq!(cancel(&reacting, &runs[3]).await, CancelledRun::Running);
    for run in &claimed {
        assert!(reacting.finish(run, again(Duration::ZERO)).await);
    }
    assert!(!is_processed(place, &runs[3]).await);
    assert_eq!(cancel(&reacting, &runs[3]).await, CancelledRun::Done);
    assert!(is_processed(place, &runs[3]).await);
    let third = of(place, &runs[3]).await;
    assert_eq!((third.state, third.attempts), (RunState::Cancelled, 1));
    assert_eq!(third.history.len(), 1);
    // One whose claim has run out.
    assert_eq!(
        reacting.claim(Duration::from_millis(20)).await.runs.len(),
        1
    );
    eventually(SOON, "its claim has run out", async || {
        (cancel(&reacting, &runs[4]).await == CancelledRun::Done).then_some(())
    })
    .await;
    let fourth = of(place, &runs[4]).await;
    assert_eq!((fourth.attempts, fourth.history.len()), (2, 2));
    assert!(fourth.history[1].error.contains("the process ended"));
    assert!(reacting.claim_as(LONG, true).await.runs.is_empty());
    let gone = place
        .store
        .cancel_run(999, runs[0].position, runs[0].event.event_id, "x");
    assert_eq!(gone.await.unwrap_err().kind(), ErrorKind::Operator);
}

async fn the_next_run_of_a_key_follows_a_cancelled_one(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 3).await;
    reacting
        .queue(runs.iter().map(|run| keyed(run, "a")).collect())
        .await;
    assert_eq!(cancel(&reacting, &runs[1]).await, CancelledRun::Done);
    assert_eq!(cancel(&reacting, &runs[0]).await, CancelledRun::Done);
    let claimed = reacting.claim(LONG).await.runs;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].position, runs[2].position);
}

async fn an_ended_run_is_opened_again(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 5).await;
    reacting.end(&runs[..1], Ending::Succeeded).await;
    reacting.end(&runs[1..2], Ending::Cancelled).await;
    reacting
        .queue(vec![
            queued(&runs[2], Duration::ZERO),
            queued(&runs[3], LONG),
        ])
        .await;
    let run = reacting.claim(LONG).await.runs.remove(0);
    assert!(reacting.finish(&run, again(Duration::ZERO)).await);
    let run = reacting.claim(LONG).await.runs.remove(0);
    assert!(reacting.finish(&run, ended_as(Ending::Failed)).await);
    let end = end_of(place).await;
    reacting.pass(end).await;
    mark(place, end).await;
    let before = place.store.run_counts().await.unwrap()[0];
    assert_eq!(
        (before.succeeded, before.failed, before.cancelled),
        (1, 1, 1)
    );
    // One is open, one is not decided, and one has another event.
    let mut wanted: Vec<ReopenedRun> = runs.iter().map(reopened).collect();
    wanted.push(ReopenedRun {
        position: runs[0].position,
        ..reopened(&runs[4])
    });
    wanted.remove(0);
    wanted[0].unique_key = Some("u".to_owned());
    let opened = place.store.reopen_runs(reacting.id, wanted.clone()).await;
    assert_eq!(opened.unwrap(), 2);
    assert_eq!(
        place.store.reopen_runs(reacting.id, wanted).await.unwrap(),
        0
    );
    let opened = place
        .store
        .reopen_runs(reacting.id, vec![reopened(&runs[0])])
        .await;
    assert_eq!(opened.unwrap(), 1);
    assert_eq!(
        place
            .store
            .reopen_runs(999, vec![reopened(&runs[0])])
            .await
            .unwrap(),
        0
    );
    let counts = place.store.run_counts().await.unwrap()[0];
    assert_eq!(
        (counts.succeeded, counts.failed, counts.cancelled),
        (0, 0, 0)
    );
    assert_eq!(counts.queued, 4);
    for run in &runs[..3] {
        assert!(!is_processed(place, run).await);
    }
    let failed = of(place, &runs[2]).await;
    assert_eq!((failed.state, failed.attempts), (RunState::Available, 2));
    let errors: Vec<&str> = failed
        .history
        .iter()
        .map(|one| one.error.as_str())
        .collect();
    assert_eq!(errors, ["not yet", "it has failed"]);
    assert_eq!((failed.error, failed.finished_at), (None, None));
    assert_eq!(of(place, &runs[0]).await.history.len(), 0);
    reacting.release("u").await;
    let mut claimed = reacting.claim(LONG).await.runs;
    claimed.sort_by_key(|run| run.position);
    let attempts: Vec<(u32, u32)> = claimed
        .iter()
        .map(|run| (run.attempts, run.attempts_before))
        .collect();
    assert_eq!(attempts, [(2, 1), (2, 1), (3, 2)]);
    assert_eq!(claimed[1].event.event_id, runs[1].event.event_id);
    for run in &claimed {
        assert!(reacting.succeed(run).await);
    }
    for run in &runs[..3] {
        assert!(is_processed(place, run).await);
    }
    let done = of(place, &runs[2]).await;
    assert_eq!((done.state, done.attempts), (RunState::Succeeded, 3));
    assert_eq!(done.history.len(), 2);
    assert_eq!(place.store.run_counts().await.unwrap()[0].succeeded, 3);
}

async fn a_run_with_an_order_key_waits_when_it_is_opened_again(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 4).await;
    reacting.end(&runs[..3], Ending::Failed).await;
    reacting.queue(vec![keyed(&runs[3], "a")]).await;
    let last = reacting.claim(LONG).await.runs.remove(0);
    let wanted = runs[..3].iter().map(|run| ReopenedRun {
        order_key: Some("a".to_owned()),
        ..reopened(run)
    });
    let opened = place.store.reopen_runs(reacting.id, wanted.collect()).await;
    assert_eq!(opened.unwrap(), 3);
    reacting.release("a").await;
    assert!(
        reacting.claim(LONG).await.runs.is_empty(),
        "the last one runs"
    );
    // Its next attempt comes behind those before it.
    assert!(reacting.finish(&last, again(Duration::ZERO)).await);
    for run in &runs {
        let claimed = reacting.claim(LONG).await.runs;
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].position, run.position);
        assert!(reacting.succeed(&claimed[0]).await);
    }
}

async fn a_run_with_a_key_waits_for_the_lane_when_it_is_opened_again(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 6).await;
    reacting.end(&runs[1..4], Ending::Failed).await;
    let of_key = |run: &LoggedEvent, key: &str| ReopenedRun {
        order_key: Some(key.to_owned()),
        ..reopened(run)
    };
    let mut wanted = vec![of_key(&runs[2], "a"), of_key(&runs[3], "b")];
    let opened = place.store.reopen_runs(reacting.id, wanted.clone()).await;
    assert_eq!(opened.unwrap(), 2);
    let claimed = reacting.claim(LONG).await;
    assert!(claimed.runs.is_empty() && claimed.reopened);
    assert_eq!(claimed.next, None);
    let waiting = async |after, limit| {
        let store = &place.store;
        let waiting = store
            .reopened_keys(reacting.id, after, limit)
            .await
            .unwrap();
        Vec::from_iter(waiting.into_iter().map(|run| (run.position, run.key)))
    };
    let expected = [
        (runs[2].position, "a".to_owned()),
        (runs[3].position, "b".to_owned()),
    ];
    assert_eq!(waiting(Position::START, 9).await, expected);
    assert_eq!(waiting(Position::START, 1).await, expected[..1]);
    assert_eq!(waiting(runs[2].position, 9).await, expected[1..]);
    // What the lane had in memory, before and behind it, and another one that is opened again.
    reacting
        .queue(vec![keyed(&runs[4], "a"), keyed(&runs[0], "a")])
        .await;
    wanted = vec![of_key(&runs[1], "a")];
    assert_eq!(
        place.store.reopen_runs(reacting.id, wanted).await.unwrap(),
        1
    );
    assert!(reacting.claim(LONG).await.runs.is_empty());
    reacting.release("a").await;
    assert_eq!(waiting(Position::START, 9).await, expected[1..]);
    for run in [&runs[0], &runs[1], &runs[2], &runs[4]] {
        let claimed = reacting.claim(LONG).await.runs;
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].position, run.position);
        assert!(reacting.succeed(&claimed[0]).await);
    }
    // One that waits is cancelled as any other.
    assert_eq!(cancel(&reacting, &runs[3]).await, CancelledRun::Done);
    assert!(!reacting.claim(LONG).await.reopened);
}

async fn runs_of_one_unique_key_are_released_one_by_one(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 4).await;
    reacting.end(&runs[..2], Ending::Failed).await;
    let unique = |run: &LoggedEvent| ReopenedRun {
        unique_key: Some("u".to_owned()),
        ..reopened(run)
    };
    let first = QueuedRun {
        unique_key: Some("u".to_owned()),
        ..queued(&runs[2], Duration::ZERO)
    };
    reacting.queue(vec![first, queued(&runs[3], LONG)]).await;
    let open = reacting.claim(LONG).await.runs.remove(0);
    let wanted = runs[..2].iter().map(unique).collect();
    assert_eq!(
        place.store.reopen_runs(reacting.id, wanted).await.unwrap(),
        2
    );
    reacting.release("u").await;
    assert!(reacting.claim(LONG).await.runs.is_empty(), "one is open");
    assert!(reacting.succeed(&open).await);
    for run in &runs[..2] {
        assert!(reacting.claim(LONG).await.runs.is_empty());
        reacting.release("u").await;
        let mut claimed = reacting.claim(LONG).await.runs;
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].position, run.position);
        reacting.release("u").await;
        assert!(reacting.claim(LONG).await.runs.is_empty());
        assert!(reacting.succeed(&claimed.remove(0)).await);
    }
}

async fn a_reaction_is_paused_with_its_lanes(place: &Place) {
    let store = &place.store;
    let pause = async |name: &str, paused| store.pause_reaction(name, paused).await.unwrap();
    assert_eq!(pause("r", true).await, Commanded::Unknown);
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let running = Commanded::Refused("reaction r is running".to_owned());
    assert_eq!(pause("r", false).await, running);
    let before = place.record("r:0").await;
    assert_eq!(pause("r", true).await, Commanded::Done);
    let paused = Commanded::Refused("reaction r is paused, and not running".to_owned());
    assert_eq!(pause("r", true).await, paused);
    let lane = place.record("r:0").await;
    assert_eq!(lane.state, FollowerState::Paused);
    assert!(lane.revision > before.revision);
    // What it has begun is stored all the same, and new lanes are paused too.
    let runs = some_events(place, 1).await;
    reacting.end(&runs, Ending::Succeeded).await;
    let mut wider = declaration("r", "page.*", Start::Now);
    wider.spec.lanes = 2;
    assert!(store.declare_reaction(&wider).await.unwrap());
    let reaction = store.reaction("r").await.unwrap().unwrap();
    assert!(reaction.paused);
    assert!(
        reaction
            .lanes
            .iter()
            .all(|lane| lane.state == FollowerState::Paused)
    );
    assert_eq!(pause("r", false).await, Commanded::Done);
    let lane = place.record("r:1").await;
    assert_eq!(lane.state, FollowerState::Running);
    // A lane that has stopped itself goes on.
    let stopped = store.stop_follower(
        &reacting.lease,
        "r:1",
        lane.revision,
        FollowerState::Broken,
        "it cannot go on",
    );
    assert!(stopped.await.unwrap());
    assert_eq!(pause("r", false).await, Commanded::Done);
    let lane = place.record("r:1").await;
    assert_eq!((lane.state, lane.reason), (FollowerState::Running, None));
}

async fn a_removed_reaction_leaves_its_events_processed(place: &Place) {
    let store = &place.store;
    assert_eq!(
        store.remove_reaction("gone").await.unwrap(),
        Commanded::Unknown
    );
    let gone = Reacting::new(place, "gone", Start::Now).await;
    let stays = Reacting::new(place, "stays", Start::Now).await;
    let mut only_gone = declaration("gone", "*", Start::Now);
    only_gone.spec.lanes = 2;
    assert!(store.declare_reaction(&only_gone).await.unwrap());
    let mut runs = some_events(place, 3).await;
    gone.end(&runs[..2], Ending::Failed).await;
    gone.queue(vec![queued(&runs[2], LONG)]).await;
    stays.end(&runs[..1], Ending::Failed).await;
    stays.end(&runs[1..], Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    // Not decided by it, and one of a type that no other reaction has.
    runs.extend(some_events(place, 1).await);
    stays.end(&runs[3..], Ending::Succeeded).await;
    runs.extend(written(place, vec![typed("other")]).await);
    assert!(!is_processed(place, &runs[4]).await);
    let refused = store.remove_reaction("gone").await.unwrap();
    assert!(
        matches!(&refused, Commanded::Refused(reason) if reason.contains("worker runs reaction gone")),
        "{refused:?}"
    );
    LeaseStore::release(&**store, &gone.lease).await.unwrap();
    assert_eq!(
        store.remove_reaction("gone").await.unwrap(),
        Commanded::Done
    );
    assert!(store.reaction("gone").await.unwrap().is_none());
    assert!(store.follower("gone:1").await.unwrap().is_none());
    let found = store.runs_of(runs[2].event.event_id).await.unwrap();
    assert_eq!((found.len(), found[0].reaction), (1, stays.id));
    let counts = store.run_counts().await.unwrap();
    assert_eq!((counts.len(), counts[0].queued), (1, 0));
    let processed = are_processed(place, &runs).await;
    assert_eq!(processed, [false, true, true, false, false]);
    // The rest goes with its stretch.
    mark(place, end_of(place).await).await;
    assert!(is_processed(place, &runs[3]).await && is_processed(place, &runs[4]).await);
    let new = written(place, vec![typed("other")]).await;
    assert!(is_processed(place, &new[0]).await, "writers know of it");
    // Under the same name it is another one.
    let again = Reacting::new(place, "gone", Start::Now).await;
    assert!(again.id != gone.id);
    assert!(
        list(place, &all(again.id, &RunState::ALL), RunOrder::Oldest, 10)
            .await
            .is_empty()
    );
    let scheduled = QueuedRun {
        due: Due::At(chrono::Utc::now() + chrono::TimeDelta::days(1)),
        ..queued(&runs[0], LONG)
    };
    again.queue(vec![scheduled]).await;
    let found = list(
        place,
        &all(again.id, &[RunState::Scheduled]),
        RunOrder::Oldest,
        10,
    )
    .await;
    assert_eq!(found.len(), 1);
}

//! Reactions: declarations, first outcomes, the queue, and what it makes of an event.

use super::reacting::{
    LONG, Reacting, again, are_processed, declaration, end_of, ended, ended_as, is_processed,
    keyed, mark, queued, some_events, written,
};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use eclusa::store::commit_log::Position;
use eclusa::store::followers::{Also, Start, Step};
use eclusa::store::leases::Fenced;
use eclusa::store::reactions::{
    ClaimOutcome, Claimed, ClaimedRun, Completed, Ending, QueueKey, QueuedRun,
};
use eclusa::store::transaction::{Effect, EffectError, Transaction};
use eclusa::store::{LeaseStore, postgres as pg, sqlite as lite};
use std::sync::Arc;
use std::time::Duration;

async fn states(place: &Place) -> Vec<(String, i32)> {
    let runs = place.runs().await.into_iter();
    runs.map(|run| (run.state, run.attempts)).collect()
}

on_both_stores! {
    a_declaration_holds_from_a_position_on,
    a_lane_stays_until_it_has_decided_its_events,
    the_first_outcome_of_a_run_stands,
    a_claimed_run_is_tried_again_and_ends,
    a_claim_that_runs_out_is_lost_and_its_run_takes_turns,
    only_a_lost_claim_that_had_its_turn_counts,
    runs_of_one_order_key_are_claimed_one_by_one,
    keys_of_the_queue_are_found,
    a_paused_reaction_claims_nothing,
    an_event_is_processed_when_its_runs_are_done,
    a_run_is_completed_in_a_transaction_once,
}

async fn a_declaration_holds_from_a_position_on(place: &Place) {
    let store = &place.store;
    some_events(place, 3).await;
    let first = declaration("r", "page.*", Start::Now);
    assert!(store.declare_reaction(&first).await.unwrap());
    assert!(!store.declare_reaction(&first).await.unwrap());
    let end = end_of(place).await;
    let declared = store.reaction("r").await.unwrap().unwrap();
    assert_eq!(declared.lanes.len(), 1);
    assert_eq!(declared.lanes[0].position, end);
    some_events(place, 2).await;
    let mut second = declaration("r", "order.*", Start::Beginning);
    second.spec.lanes = 3;
    assert!(store.declare_reaction(&second).await.unwrap());
    let changed = store.reaction("r").await.unwrap().unwrap();
    assert_eq!((changed.id, changed.lanes.len()), (declared.id, 3));
    // The first lane finishes what was before; the others begin behind it.
    let later = end_of(place).await;
    assert_eq!(changed.lanes[0].types.to_vec(), ["page.*"]);
    assert_eq!(
        (changed.lanes[0].position, changed.lanes[0].until),
        (end, later)
    );
    assert_eq!(changed.lanes[1].types.to_vec(), ["order.*"]);
    assert_eq!(changed.lanes[1].position, later);
    let past = declaration("past", "*", Start::Beginning);
    assert!(store.declare_reaction(&past).await.unwrap());
    let past = store.reaction("past").await.unwrap().unwrap();
    assert_eq!(past.lanes[0].position, Position::START);
    assert_eq!(store.reactions().await.unwrap().len(), 2);
}

async fn a_lane_stays_until_it_has_decided_its_events(place: &Place) {
    let lanes = async |count| {
        some_events(place, 1).await;
        let mut declared = declaration("r", "page.*", Start::Now);
        declared.spec.lanes = count;
        assert!(place.store.declare_reaction(&declared).await.unwrap());
        let reaction = place.store.reaction("r").await.unwrap().unwrap();
        reaction.lanes
    };
    Reacting::new(place, "r", Start::Now).await;
    // The first lane has still to decide what was before there was another one.
    assert_eq!(lanes(2).await.len(), 2);
    let left = lanes(1).await;
    assert_eq!(left.len(), 2);
    assert_eq!(left[1].until, end_of(place).await);
}

async fn the_first_outcome_of_a_run_stands(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 3).await;
    reacting.end(&runs[..2], Ending::Succeeded).await;
    // A process that did not know of it, with the same and more.
    reacting.end(&runs, Ending::Failed).await;
    reacting.queue(vec![queued(&runs[0], Duration::ZERO)]).await;
    let expected = ["succeeded", "succeeded", "failed"];
    assert_eq!(
        states(place).await,
        expected.map(|state| (state.to_owned(), 1))
    );
    assert!(reacting.claim(LONG).await.runs.is_empty());
    let counts = place.store.run_counts().await.unwrap();
    assert_eq!((counts[0].succeeded, counts[0].failed), (2, 1));
    let decided = place
        .store
        .decided(reacting.id, runs[0].position, runs[2].position);
    assert_eq!(
        decided.await.unwrap(),
        [runs[1].position, runs[2].position],
        "behind the first"
    );
    // Without the lease nothing is stored.
    let more = some_events(place, 1).await;
    LeaseStore::release(&*place.store, &reacting.lease)
        .await
        .unwrap();
    let done = reacting.step(None, vec![ended(&more[0], Ending::Failed)], Vec::new());
    assert_eq!(done.await.unwrap(), Fenced::Lost);
    assert_eq!(place.runs().await.len(), 3);
}

async fn a_claimed_run_is_tried_again_and_ends(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 2).await;
    reacting
        .queue(vec![
            queued(&runs[0], Duration::ZERO),
            queued(&runs[1], LONG),
        ])
        .await;
    let claimed = reacting.claim(LONG).await;
    assert_eq!(claimed.runs.len(), 1, "the other is due later");
    let first = &claimed.runs[0];
    assert_eq!((first.position, first.attempts), (runs[0].position, 1));
    assert_eq!(first.event.event_id, runs[0].event.event_id);
    assert!(claimed.next.unwrap() > LONG / 2);
    assert!(reacting.claim(LONG).await.runs.is_empty(), "it is claimed");
    assert!(reacting.finish(first, again(Duration::ZERO)).await);
    assert!(!reacting.succeed(first).await, "the claim is over");
    let second = reacting.claim(LONG).await.runs.remove(0);
    assert_eq!(second.attempts, 2);
    assert!(second.token > first.token);
    // One that does not count.
    let snoozed = ClaimOutcome::Again {
        after: Duration::ZERO,
        error: String::new(),
        unspent: true,
    };
    assert!(reacting.finish(&second, snoozed).await);
    let third = reacting.claim(LONG).await.runs.remove(0);
    assert_eq!(third.attempts, 2);
    assert!(reacting.succeed(&third).await);
    let record = place.store.runs_of(runs[0].event.event_id).await.unwrap();
    assert_eq!((record[0].attempts, record[0].history.len()), (2, 1));
    assert_eq!(record[0].history[0].error, "not yet");
    let counts = place.store.run_counts().await.unwrap();
    assert_eq!((counts[0].succeeded, counts[0].queued), (1, 1));
}

async fn a_claim_that_runs_out_is_lost_and_its_run_takes_turns(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 2).await;
    let alone = QueuedRun {
        alone: true,
        ..queued(&runs[1], LONG)
    };
    reacting
        .queue(vec![queued(&runs[0], Duration::ZERO), alone])
        .await;
    let lost = reacting
        .claim(Duration::from_millis(20))
        .await
        .runs
        .remove(0);
    let taken = eventually(SOON, "the claim has run out", async || {
        assert!(reacting.claim(LONG).await.runs.is_empty());
        reacting.claim_as(LONG, true).await.runs.pop()
    })
    .await;
    assert_eq!((taken.position, taken.attempts), (runs[0].position, 2));
    assert!(!reacting.succeed(&lost).await, "another has taken it over");
    let failed = reacting.finish(&taken, ended_as(Ending::Failed)).await;
    assert!(failed);
    let record = place.store.runs_of(runs[0].event.event_id).await.unwrap();
    assert_eq!(record[0].history.len(), 1);
    assert!(record[0].history[0].error.contains("the process ended"));
}

async fn only_a_lost_claim_that_had_its_turn_counts(place: &Place) {
    const SHORT: Duration = Duration::from_millis(20);
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 1).await;
    reacting.queue(vec![queued(&runs[0], Duration::ZERO)]).await;
    let counted = |run: &ClaimedRun| (run.attempts, run.attempts - run.attempts_before);
    let first = reacting.claim(SHORT).await.runs.remove(0);
    assert_eq!(counted(&first), (1, 1));
    let in_turn = async |lease| {
        eventually(SOON, "it is claimed", async || {
            assert!(reacting.claim(LONG).await.runs.is_empty());
            reacting.claim_as(lease, true).await.runs.pop()
        })
        .await
    };
    assert_eq!(counted(&in_turn(SHORT).await), (2, 1));
    let third = in_turn(LONG).await;
    assert_eq!(counted(&third), (3, 2));
    // What does not count says nothing of what it does to its process.
    let snoozed = ClaimOutcome::Again {
        after: Duration::ZERO,
        error: String::new(),
        unspent: true,
    };
    assert!(reacting.finish(&third, snoozed).await);
    let again_third = in_turn(LONG).await;
    assert_eq!(counted(&again_third), (3, 2));
    assert!(reacting.finish(&again_third, again(Duration::ZERO)).await);
    let fourth = reacting.claim(LONG).await.runs.remove(0);
    assert_eq!(counted(&fourth), (4, 3));
    let record = place.store.runs_of(runs[0].event.event_id).await.unwrap();
    let attempts: Vec<u32> = record[0].history.iter().map(|one| one.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
}

async fn runs_of_one_order_key_are_claimed_one_by_one(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 5).await;
    reacting
        .queue(vec![
            keyed(&runs[1], "a"),
            keyed(&runs[0], "a"),
            keyed(&runs[2], "b"),
        ])
        .await;
    reacting.queue(vec![keyed(&runs[3], "a")]).await;
    let positions = |claimed: &Claimed| -> Vec<Position> {
        let mut all: Vec<_> = claimed.runs.iter().map(|run| run.position).collect();
        all.sort();
        all
    };
    let mut claimed = reacting.claim(LONG).await;
    assert_eq!(positions(&claimed), [runs[0].position, runs[2].position]);
    claimed.runs.sort_by_key(|run| run.position);
    // A retry keeps its place.
    assert!(
        reacting
            .finish(&claimed.runs[0], again(Duration::ZERO))
            .await
    );
    let claimed = reacting.claim(LONG).await;
    assert_eq!(positions(&claimed), [runs[0].position]);
    assert!(
        reacting
            .finish(&claimed.runs[0], ended_as(Ending::Failed))
            .await
    );
    for run in [&runs[1], &runs[3]] {
        let claimed = reacting.claim(LONG).await;
        assert_eq!(positions(&claimed), [run.position]);
        assert!(reacting.succeed(&claimed.runs[0]).await);
    }
}

async fn keys_of_the_queue_are_found(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 2).await;
    let unique = QueuedRun {
        unique_key: Some("u".to_owned()),
        ..queued(&runs[1], LONG)
    };
    reacting.queue(vec![keyed(&runs[0], "o"), unique]).await;
    let found = async |kind| {
        let keys = ["o", "u", "x"].map(str::to_owned);
        let found = place.store.queued_keys(reacting.id, kind, &keys);
        found.await.unwrap()
    };
    assert_eq!(found(QueueKey::Order).await, ["o"]);
    assert_eq!(found(QueueKey::Unique).await, ["u"]);
    let run = reacting.claim(LONG).await.runs.remove(0);
    assert!(reacting.succeed(&run).await);
    assert!(found(QueueKey::Order).await.is_empty());
}

async fn a_paused_reaction_claims_nothing(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 1).await;
    reacting.queue(vec![queued(&runs[0], Duration::ZERO)]).await;
    place.store.pause_reaction("r", true).await.unwrap();
    assert!(reacting.claim(LONG).await.runs.is_empty());
    place.store.pause_reaction("r", false).await.unwrap();
    assert_eq!(reacting.claim(LONG).await.runs.len(), 1);
}

async fn an_event_is_processed_when_its_runs_are_done(place: &Place) {
    let one = Reacting::new(place, "one", Start::Now).await;
    let two = Reacting::new(place, "two", Start::Now).await;
    let mut runs = some_events(place, 3).await;
    runs.extend(written(place, vec![typed("other")]).await);
    assert!(is_processed(place, &runs[3]).await, "none reacts to it");
    one.end(&runs[..2], Ending::Succeeded).await;
    one.end(&runs[2..3], Ending::Failed).await;
    two.end(&runs[..1], Ending::Succeeded).await;
    two.queue(vec![
        queued(&runs[1], Duration::ZERO),
        queued(&runs[2], Duration::ZERO),
    ])
    .await;
    let end = end_of(place).await;
    two.pass(end).await;
    mark(place, end).await;
    let processed = async || are_processed(place, &runs[..3]).await;
    assert_eq!(processed().await, [true, false, false]);
    for run in two.claim(LONG).await.runs {
        assert!(two.succeed(&run).await);
    }
    assert_eq!(processed().await, [true, true, false], "a failed one stays");
    // A reaction that comes later takes the mark back while its run is open.
    let late = Reacting::new(place, "late", Start::Beginning).await;
    late.queue(vec![queued(&runs[0], Duration::ZERO)]).await;
    assert_eq!(processed().await, [false, true, false]);
    late.pass(end).await;
    let run = late.claim(LONG).await.runs.remove(0);
    assert!(late.finish(&run, ended_as(Ending::Cancelled)).await);
    assert_eq!(processed().await, [true, true, false]);
}

/// Completes a run, and is committed with the step around it.
struct Completing(Completed);

#[async_trait::async_trait]
impl Effect for Completing {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        let is_done = match transaction {
            Transaction::Postgres(connection) => pg::complete(connection, &self.0).await?,
            Transaction::Sqlite(connection) => lite::complete(connection, &self.0)?,
        };
        match is_done {
            true => Ok(()),
            false => Err(EffectError::Refused("it has an outcome".to_owned())),
        }
    }
}

async fn a_run_is_completed_in_a_transaction_once(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 2).await;
    let complete = async |position, token, event_id| {
        let lane = place.record("r:0").await;
        let step = Step {
            lease: reacting.lease.clone(),
            follower: lane.name,
            revision: None,
            n: lane.n,
            to: lane.position,
            begun: 0,
            also: Also::Nothing,
        };
        let completed = Completed {
            reaction: reacting.id,
            position,
            token,
            event_id,
            attempt: 1,
            worker: Arc::from("worker"),
        };
        let step = place.store.step(step, Arc::new(Completing(completed)));
        step.await.is_ok()
    };
    let (position, id) = (runs[0].position, runs[0].event.event_id);
    assert!(complete(position, None, id).await);
    assert!(!complete(position, None, id).await);
    reacting.queue(vec![queued(&runs[1], Duration::ZERO)]).await;
    let run = reacting.claim(LONG).await.runs.remove(0);
    let (position, id) = (run.position, run.event.event_id);
    assert!(!complete(position, None, id).await, "it is open");
    assert!(!complete(position, Some(run.token - 1), id).await);
    assert!(complete(position, Some(run.token), id).await);
    assert!(!reacting.succeed(&run).await);
    let counts = place.store.run_counts().await.unwrap();
    assert_eq!((counts[0].succeeded, counts[0].queued), (2, 0));
}

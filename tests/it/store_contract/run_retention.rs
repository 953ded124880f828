//! Outcomes of runs: what is old goes; on PostgreSQL by epochs, over whose change each run keeps one outcome.

use super::reacting::{
    LONG, Reacting, declaration, end_of, ended, ended_as, mark, queued, some_events,
};
use super::run_commands::reopened;
use crate::followers::{Place, on_both_stores};
use crate::harness::connect;
use eclusa::store::LeaseStore;
use eclusa::store::commit_log::{LoggedEvent, Position};
use eclusa::store::followers::{Commanded, Start};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::reactions::{Ending, QueuedRun};
use eclusa::store::retention::ExpiredRuns;
use eclusa::store::runs::RunState;
use std::time::Duration;

const KEEP: Option<u32> = Some(10);

async fn lease(place: &Place) -> Lease {
    let lease = LeaseStore::acquire(&*place.store, "retention", "me", LONG).await;
    lease.unwrap().unwrap()
}

/// Until there is no more; how many were deleted.
async fn expire(place: &Place, lease: &Lease, keep: Option<u32>) -> u64 {
    let mut all = 0;
    for _ in 0..50 {
        let expired = place.store.expire_runs(lease, keep).await.unwrap();
        let Fenced::Done(ExpiredRuns { deleted, more }) = expired else {
            panic!("the lease is held");
        };
        all += deleted;
        if !more {
            return all;
        }
    }
    panic!("there is always more");
}

/// Lets outcomes be older, and what PostgreSQL knows of epochs.
async fn age(place: &Place, days: i64, which: &str) {
    let sql = match place.url {
        Some(_) => format!(
            "UPDATE reaction_runs SET finished_at = finished_at - interval '{days} days' WHERE {which}; \
             UPDATE reaction_epochs SET since = since - interval '{days} days', \
                                        passed_at = passed_at - interval '{days} days'"
        ),
        None => format!(
            "UPDATE reaction_runs SET finished_at = finished_at - {days} * 86400000000 WHERE {which}"
        ),
    };
    place.execute(&sql).await;
}

/// Begins an epoch behind the end of the log, where there are epochs.
async fn begin_epoch(place: &Place, lease: &Lease) {
    if place.url.is_none() {
        return;
    }
    let newest = "SELECT CAST(max(epoch) AS BIGINT) AS n FROM reaction_epochs";
    let before = place.number(newest).await;
    expire(place, lease, None).await;
    place
        .execute("UPDATE reaction_epochs SET since = since - interval '31 days'")
        .await;
    expire(place, lease, None).await;
    assert_eq!(place.number(newest).await, before + 1);
}

async fn positions(place: &Place) -> Vec<i64> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    let rows: Vec<Row> = place
        .query("SELECT position AS n FROM reaction_runs ORDER BY position")
        .await;
    rows.into_iter().map(|row| row.n).collect()
}

fn places(runs: &[LoggedEvent]) -> Vec<i64> {
    runs.iter().map(|run| run.position.0).collect()
}

on_both_stores! {
    old_outcomes_go_and_open_runs_stay,
    outcomes_of_a_removed_reaction_go,
    nothing_goes_under_a_lost_lease,
    counts_stay_what_they_are,
}

async fn old_outcomes_go_and_open_runs_stay(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let lease = lease(place).await;
    let runs = some_events(place, 2_000).await;
    reacting.end(&runs[..1_000], Ending::Succeeded).await;
    reacting.end(&runs[1_000..1_996], Ending::Failed).await;
    reacting
        .queue(vec![
            queued(&runs[1_996], LONG),
            queued(&runs[1_997], Duration::ZERO),
        ])
        .await;
    reacting.end(&runs[1_998..], Ending::Cancelled).await;
    mark(place, end_of(place).await).await;
    begin_epoch(place, &lease).await;
    let young = some_events(place, 3).await;
    reacting.end(&young, Ending::Succeeded).await;
    expire(place, &lease, KEEP).await;
    age(place, 9, "state <> 'open'").await;
    assert_eq!(expire(place, &lease, KEEP).await, 0);
    assert_eq!(place.runs().await.len(), 2_003);
    let last = young[0].position.0;
    age(place, 2, &format!("state <> 'open' AND position < {last}")).await;
    // One that has ended only now, and one that was opened again.
    let run = reacting.claim(LONG).await.runs.remove(0);
    assert!(reacting.finish(&run, ended_as(Ending::Succeeded)).await);
    let again = place
        .store
        .reopen_runs(reacting.id, vec![reopened(&runs[7])])
        .await;
    assert_eq!(again.unwrap(), 1);
    expire(place, &lease, KEEP).await;
    let mut kept = places(&[runs[7].clone(), runs[1_996].clone(), runs[1_997].clone()]);
    kept.extend(places(&young));
    assert_eq!(positions(place).await, kept);
    // They go on as before.
    let open = place.store.runs_of(runs[7].event.event_id).await.unwrap();
    assert_eq!(open[0].state, RunState::Available);
    let run = reacting.claim(LONG).await.runs.remove(0);
    assert_eq!(run.position, runs[7].position);
    assert!(reacting.succeed(&run).await);
    let done = place.store.runs_of(runs[7].event.event_id).await.unwrap();
    assert_eq!((done[0].state, done[0].attempts), (RunState::Succeeded, 2));
    let gone = place
        .store
        .reopen_runs(reacting.id, vec![reopened(&runs[8])])
        .await;
    assert_eq!(gone.unwrap(), 0, "its outcome has expired");
    assert_eq!(expire(place, &lease, None).await, 0);
}

async fn outcomes_of_a_removed_reaction_go(place: &Place) {
    let gone = Reacting::new(place, "gone", Start::Now).await;
    let stays = Reacting::new(place, "stays", Start::Now).await;
    let lease = lease(place).await;
    let runs = some_events(place, 6_000).await;
    gone.end(&runs[..5_990], Ending::Succeeded).await;
    gone.end(&runs[5_990..], Ending::Failed).await;
    stays.end(&runs[..10], Ending::Succeeded).await;
    LeaseStore::release(&*place.store, &gone.lease)
        .await
        .unwrap();
    let removed = place.store.remove_reaction("gone").await.unwrap();
    assert_eq!(removed, Commanded::Done);
    // The failed ones went at once.
    assert_eq!(place.runs().await.len(), 6_000);
    assert_eq!(expire(place, &lease, None).await, 5_990);
    assert_eq!(positions(place).await, places(&runs[..10]));
}

async fn nothing_goes_under_a_lost_lease(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let lost = lease(place).await;
    let runs = some_events(place, 10).await;
    reacting.end(&runs, Ending::Succeeded).await;
    begin_epoch(place, &lost).await;
    some_events(place, 1).await;
    age(place, 100, "true").await;
    LeaseStore::release(&*place.store, &lost).await.unwrap();
    assert_eq!(
        place.store.expire_runs(&lost, KEEP).await.unwrap(),
        Fenced::Lost
    );
    assert_eq!(place.runs().await.len(), 10);
}

async fn counts_stay_what_they_are(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let other = Reacting::new(place, "other", Start::Now).await;
    let lease = lease(place).await;
    let runs = some_events(place, 30).await;
    for run in &runs {
        reacting
            .end(std::slice::from_ref(run), Ending::Succeeded)
            .await;
    }
    other.end(&runs[..2], Ending::Succeeded).await;
    let again = vec![reopened(&runs[0])];
    assert_eq!(
        place.store.reopen_runs(reacting.id, again).await.unwrap(),
        1
    );
    let counts = place.store.run_counts().await.unwrap();
    assert_eq!((counts[0].succeeded, counts[1].succeeded), (29, 2));
    expire(place, &lease, None).await;
    assert_eq!(place.store.run_counts().await.unwrap(), counts);
    assert_eq!(
        place
            .number("SELECT count(*) AS n FROM reaction_counts")
            .await,
        2
    );
}

/// The partitions of the outcomes.
async fn partitions(place: &Place) -> Vec<String> {
    let client = connect(place.url.as_ref().unwrap()).await;
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits \
               WHERE inhparent = 'reaction_runs'::regclass ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What a lane has not passed stays whole, and what has no partition any more has a place to go.
#[actix_rt::test]
async fn an_epoch_goes_when_all_lanes_have_passed_it() {
    let place = &Place::postgres().await;
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let slow = Reacting::new(place, "slow", Start::Now).await;
    let lease = lease(place).await;
    let first = some_events(place, 50).await;
    reacting.end(&first, Ending::Succeeded).await;
    begin_epoch(place, &lease).await;
    let second = some_events(place, 50).await;
    reacting.end(&second, Ending::Succeeded).await;
    begin_epoch(place, &lease).await;
    let third = some_events(place, 1).await;
    reacting.end(&third, Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    expire(place, &lease, KEEP).await;
    age(place, 11, "true").await;
    expire(place, &lease, KEEP).await;
    assert_eq!(place.runs().await.len(), 101, "slow is behind");
    let until = place.behind(&first[49]);
    slow.pass(until).await;
    expire(place, &lease, KEEP).await;
    age(place, 11, "true").await;
    expire(place, &lease, KEEP).await;
    assert_eq!(place.runs().await.len(), 101, "its events are not marked");
    mark(place, end_of(place).await).await;
    expire(place, &lease, KEEP).await;
    assert_eq!(place.runs().await.len(), 101, "they are only now");
    age(place, 11, "true").await;
    // Another one that begins with the first event is behind again, until it was seen to have passed.
    let late = Reacting::new(place, "late", Start::Beginning).await;
    late.end(&first, Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    expire(place, &lease, KEEP).await;
    assert_eq!(place.runs().await.len(), 151);
    age(place, 11, "true").await;
    expire(place, &lease, KEEP).await;
    assert_eq!(
        positions(place).await,
        places(&[&second[..], &third].concat())
    );
    assert_eq!(
        partitions(place).await,
        [
            "reaction_runs_1",
            "reaction_runs_2",
            "reaction_runs_3",
            "reaction_runs_4"
        ]
    );
    // Its positions are the next epoch's.
    let last = Reacting::new(place, "last", Start::Beginning).await;
    last.end(&first[..1], Ending::Failed).await;
    last.queue(vec![queued(&first[1], Duration::ZERO)]).await;
    last.end(&first[..2], Ending::Succeeded).await;
    let run = last.claim(LONG).await.runs.remove(0);
    assert!(last.succeed(&run).await);
    let epochs = place
        .number("SELECT count(*) AS n FROM reaction_runs_1")
        .await;
    assert_eq!(epochs, 52);
}

/// One epoch after the other begins and goes while two processes decide the same runs.
#[actix_rt::test]
async fn a_run_has_one_outcome_over_a_change_of_epochs() {
    let place = &Place::postgres().await;
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let lease = lease(place).await;
    let mut all = Vec::new();
    for round in 0..15 {
        let before = all.len();
        // Some were numbered before the epoch begins, and are decided behind it.
        all.extend(some_events(place, 40).await);
        let decide = async |chunk: usize| {
            for runs in all[before..].chunks(chunk) {
                let ended = runs.iter().map(|run| ended(run, Ending::Succeeded));
                let (ended, queued) = match chunk {
                    3 => (ended.collect(), Vec::new()),
                    _ => (
                        Vec::new(),
                        runs.iter().map(|run| queued(run, LONG)).collect(),
                    ),
                };
                // Of two steps at once one finds the position taken, and is to be tried again.
                while !matches!(
                    reacting
                        .step(None, ended.clone(), queued.clone())
                        .await
                        .unwrap(),
                    Fenced::Done(())
                ) {}
            }
        };
        let begin = async {
            place
                .execute("UPDATE reaction_epochs SET since = since - interval '31 days'")
                .await;
            for _ in 0..5 {
                expire(place, &lease, None).await;
            }
        };
        tokio::join!(decide(3), decide(4), begin);
        let to = place.behind(all.last().unwrap());
        reacting.pass(to).await;
        assert_eq!(positions(place).await, places(&all), "round {round}");
    }
    let epochs = "SELECT count(*) AS n FROM reaction_epochs";
    assert!(place.number(epochs).await > 10);
    let lost = "SELECT count(*) AS n FROM reaction_runs AS run WHERE epoch <> ( \
                    SELECT epoch FROM reaction_epochs AS e WHERE e.from_position < run.position \
                    ORDER BY from_position DESC LIMIT 1)";
    assert_eq!(place.number(lost).await, 0);
    let unqueued = "SELECT count(*) AS n FROM reaction_runs AS run FULL JOIN reaction_queue AS q \
                    ON q.reaction = run.reaction AND q.position = run.position AND q.epoch = run.epoch \
                    WHERE (run.state = 'open') <> (q.position IS NOT NULL) OR run.position IS NULL";
    assert_eq!(place.number(unqueued).await, 0);
    // All but what is open goes.
    mark(place, end_of(place).await).await;
    expire(place, &lease, KEEP).await;
    age(place, 20, "state <> 'open'").await;
    let open = place
        .number("SELECT count(*) AS n FROM reaction_runs WHERE state = 'open'")
        .await;
    expire(place, &lease, KEEP).await;
    let left = "SELECT count(*) AS n FROM reaction_runs WHERE state = 'open'";
    assert_eq!(place.number(left).await, open);
    assert_eq!(place.number(unqueued).await, 0);
    assert!(place.number(epochs).await <= 2);
    assert!(place.store.end().await.unwrap() > Position::START);
}

/// What uses the outcomes for long holds up the drop, and no outcome waits for longer than that does.
#[actix_rt::test]
async fn a_drop_that_has_to_wait_comes_later() {
    let place = &Place::postgres().await;
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let lease = lease(place).await;
    let runs = some_events(place, 10).await;
    reacting.end(&runs, Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    begin_epoch(place, &lease).await;
    expire(place, &lease, KEEP).await;
    age(place, 11, "true").await;
    let mut client = connect(place.url.as_ref().unwrap()).await;
    let open = client.transaction().await.unwrap();
    open.query_one("SELECT count(*) FROM reaction_runs", &[])
        .await
        .unwrap();
    let error = place.store.expire_runs(&lease, KEEP).await.unwrap_err();
    assert!(error.to_string().contains("is not dropped yet"), "{error}");
    let more = some_events(place, 1).await;
    let due = QueuedRun {
        alone: true,
        ..queued(&more[0], LONG)
    };
    reacting.queue(vec![due]).await;
    open.commit().await.unwrap();
    expire(place, &lease, KEEP).await;
    assert_eq!(positions(place).await, places(&more));
    assert!(
        place
            .store
            .declare_reaction(&declaration("r", "*", Start::Now))
            .await
            .unwrap()
    );
}

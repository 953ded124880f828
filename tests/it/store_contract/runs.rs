//! Runs as they are looked at, and as commands change them.

use super::reacting::{
    LONG, Reacting, again, declaration, end_of, keyed, queued, some_events, written,
};
use crate::followers::{Place, SOON, on_both_stores, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use eclusa::store::commit_log::{LoggedEvent, Position};
use eclusa::store::followers::Start;
use eclusa::store::leases::Fenced;
use eclusa::store::reactions::Ending;
use eclusa::store::runs::{RunFilter, RunOrder, RunRecord, RunState};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

pub fn all(reaction: i32, states: &[RunState]) -> RunFilter {
    RunFilter {
        reaction,
        states: states.to_vec(),
        after: Position::START,
        until: Position::MAX,
    }
}

pub async fn list(
    place: &Place,
    filter: &RunFilter,
    order: RunOrder,
    limit: usize,
) -> Vec<RunRecord> {
    place.store.list_runs(filter, order, limit).await.unwrap()
}

pub async fn of(place: &Place, run: &LoggedEvent) -> RunRecord {
    let mut found = place.store.runs_of(run.event.event_id).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

async fn state(place: &Place, run: &LoggedEvent) -> RunState {
    of(place, run).await.state
}

on_both_stores! {
    the_state_of_an_open_run_is_known,
    pages_visit_each_run_once,
    runs_of_an_event_are_found_also_without_the_log,
    positions_and_declarations_are_found,
}

async fn the_state_of_an_open_run_is_known(place: &Place) {
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let runs = some_events(place, 6).await;
    reacting
        .queue(vec![
            queued(&runs[0], Duration::ZERO),
            queued(&runs[1], LONG),
            keyed(&runs[2], "a"),
            keyed(&runs[3], "a"),
        ])
        .await;
    assert_eq!(state(place, &runs[0]).await, RunState::Available);
    let scheduled = of(place, &runs[1]).await;
    assert_eq!(
        (scheduled.state, scheduled.attempts),
        (RunState::Scheduled, 0)
    );
    assert!(scheduled.due.is_some());
    let waiting = of(place, &runs[3]).await;
    assert_eq!((waiting.state, waiting.due), (RunState::Available, None));
    let claimed = reacting.claim(LONG).await.runs;
    assert_eq!(claimed.len(), 2);
    let running = of(place, &runs[0]).await;
    assert_eq!((running.state, running.attempts), (RunState::Running, 1));
    assert_eq!(running.worker.as_deref(), Some("worker"));
    for run in &claimed {
        assert!(reacting.finish(run, again(LONG)).await);
    }
    let retryable = of(place, &runs[0]).await;
    assert_eq!(
        (retryable.state, retryable.attempts),
        (RunState::Retryable, 1)
    );
    assert_eq!((retryable.worker, retryable.history.len()), (None, 1));
    assert!(retryable.due.is_some());
    reacting.queue(vec![queued(&runs[4], Duration::ZERO)]).await;
    assert_eq!(
        reacting.claim(Duration::from_millis(20)).await.runs.len(),
        1
    );
    eventually(SOON, "its claim has run out", async || {
        (state(place, &runs[4]).await == RunState::Retryable).then_some(())
    })
    .await;
    reacting.end(&runs[5..], Ending::Failed).await;
    let failed = of(place, &runs[5]).await;
    assert_eq!((failed.state, failed.attempts), (RunState::Failed, 1));
    assert_eq!(failed.error.as_deref(), Some("it has failed"));
    assert_eq!(failed.took, Some(Duration::from_millis(5)));
    assert!(failed.finished_at.is_some() && failed.due.is_none());
    assert_eq!(failed.worker.as_deref(), Some("worker"));
}

/// Of thousands of runs some are in each state.
async fn pages_visit_each_run_once(place: &Place) {
    const RUNS: usize = 4_000;
    let reacting = Reacting::new(place, "r", Start::Now).await;
    let other = Reacting::new(place, "other", Start::Now).await;
    let events = some_events(place, RUNS).await;
    other.end(&events, Ending::Succeeded).await;
    let mut wanted: HashMap<RunState, Vec<Position>> = HashMap::new();
    let (mut ended, mut queue) = (Vec::new(), Vec::new());
    for (n, run) in events.iter().enumerate() {
        let mut end = |state: RunState, ending| {
            wanted.entry(state).or_default().push(run.position);
            ended.push(super::reacting::ended(run, ending));
        };
        match n % 40 {
            0 => end(RunState::Failed, Ending::Failed),
            1 | 2 => end(RunState::Cancelled, Ending::Cancelled),
            3 => {
                let of_state = wanted.entry(RunState::Scheduled).or_default();
                of_state.push(run.position);
                queue.push(queued(run, LONG));
            }
            4 => {
                let of_state = wanted.entry(RunState::Available).or_default();
                of_state.push(run.position);
                queue.push(queued(run, Duration::ZERO));
            }
            _ => end(RunState::Succeeded, Ending::Succeeded),
        }
    }
    let to = events.last().unwrap().position;
    let done = reacting.step(Some(to), ended, queue).await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let mixes: [&[RunState]; 5] = [
        &[RunState::Failed],
        &[RunState::Scheduled, RunState::Cancelled],
        &[RunState::Available, RunState::Running, RunState::Retryable],
        &[RunState::Succeeded, RunState::Failed],
        &RunState::ALL,
    ];
    for states in mixes {
        let mut expected: Vec<Position> = states
            .iter()
            .flat_map(|state| wanted.get(state).cloned().unwrap_or_default())
            .collect();
        expected.sort();
        for (order, limit) in [(RunOrder::Oldest, 333), (RunOrder::Newest, 100)] {
            let mut filter = all(reacting.id, states);
            let mut seen = Vec::new();
            loop {
                let page = list(place, &filter, order, limit).await;
                assert!(page.iter().all(|run| states.contains(&run.state)));
                let Some(last) = page.last() else { break };
                match order {
                    RunOrder::Oldest => filter.after = last.position,
                    RunOrder::Newest => filter.until = Position(last.position.0 - 1),
                }
                seen.extend(page.iter().map(|run| run.position));
            }
            if order == RunOrder::Newest {
                seen.reverse();
            }
            assert_eq!(seen, expected, "{states:?} {order:?}");
        }
    }
    assert!(
        list(place, &all(reacting.id, &[]), RunOrder::Oldest, 10)
            .await
            .is_empty()
    );
    let counts = place.store.run_counts().await.unwrap();
    let count = |state| wanted[&state].len() as u64;
    let of_reaction = counts
        .iter()
        .find(|one| one.reaction == reacting.id)
        .unwrap();
    assert_eq!(of_reaction.succeeded, count(RunState::Succeeded));
    assert_eq!(of_reaction.failed, count(RunState::Failed));
    assert_eq!(of_reaction.cancelled, count(RunState::Cancelled));
    assert_eq!(of_reaction.queued, 200);
    let of_other = counts.iter().find(|one| one.reaction == other.id).unwrap();
    assert_eq!((of_other.succeeded, of_other.queued), (RUNS as u64, 0));
}

async fn runs_of_an_event_are_found_also_without_the_log(place: &Place) {
    let one = Reacting::new(place, "one", Start::Now).await;
    let two = Reacting::new(place, "two", Start::Now).await;
    let runs = some_events(place, 2).await;
    let id = runs[0].event.event_id;
    assert!(place.store.runs_of(id).await.unwrap().is_empty());
    one.end(&runs, Ending::Succeeded).await;
    two.queue(vec![queued(&runs[0], LONG)]).await;
    let found = place.store.runs_of(id).await.unwrap();
    let states: Vec<RunState> = found.iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Succeeded, RunState::Scheduled]);
    assert!(
        found
            .iter()
            .all(|run| run.event_id == id && run.position == runs[0].position)
    );
    assert!(
        place
            .store
            .runs_of(Uuid::new_v4())
            .await
            .unwrap()
            .is_empty()
    );
    // The copy in the queue is all that is left.
    place.execute("DELETE FROM user_interactions").await;
    let found = place.store.runs_of(id).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].reaction, found[0].state),
        (two.id, RunState::Scheduled)
    );
}

async fn positions_and_declarations_are_found(place: &Place) {
    let store = &place.store;
    let old = some_events(place, 3).await;
    let before = end_of(place).await;
    assert!(
        store
            .declare_reaction(&declaration("r", "page.*", Start::Now))
            .await
            .unwrap()
    );
    let middle = some_events(place, 1).await;
    let mut changed = declaration("r", "order.*", Start::Now);
    changed.spec.when = Some("userId == 'u1'".to_owned());
    assert!(store.declare_reaction(&changed).await.unwrap());
    let new = written(place, vec![typed("order.paid")]).await;
    for run in old.iter().chain(&middle).chain(&new) {
        let position = store.position_of(run.event.event_id).await.unwrap();
        assert_eq!(position, Some(run.position));
    }
    assert_eq!(store.position_of(Uuid::new_v4()).await.unwrap(), None);
    let held = async |name: &str, position| store.held_at(name, position).await.unwrap();
    assert!(held("r", old[2].position).await.is_none());
    assert!(held("r", before).await.is_none());
    assert!(held("x", new[0].position).await.is_none());
    assert_eq!(
        held("r", middle[0].position).await.unwrap().types.to_vec(),
        ["page.*"]
    );
    let last = held("r", new[0].position).await.unwrap();
    assert_eq!(
        (last.types.to_vec(), last.spec),
        (vec!["order.*".to_owned()], changed.spec)
    );
    let ids = [new[0].event.event_id, Uuid::new_v4(), old[1].event.event_id];
    let mut found: Vec<Uuid> = store
        .events_of(&ids)
        .await
        .unwrap()
        .iter()
        .map(|event| event.event_id)
        .collect();
    found.sort();
    let mut expected = vec![ids[0], ids[2]];
    expected.sort();
    assert_eq!(found, expected);
    // Each commit at a time of its own: the n-th at n seconds.
    place.execute("DELETE FROM user_interactions").await;
    for _ in 0..40 {
        place.write(vec![event()]).await;
        end_of(place).await;
    }
    let first: i64 = match place.url {
        Some(_) => {
            place
                .execute("DELETE FROM log_commits WHERE seq <= 5 OR seq % 7 = 0")
                .await;
            place
                .execute("UPDATE log_commits SET numbered_at = to_timestamp(seq)")
                .await;
            place.number("SELECT min(seq) AS n FROM log_commits").await
        }
        None => {
            place
                .execute("DELETE FROM user_interactions WHERE id % 7 = 0")
                .await;
            place
                .execute("UPDATE user_interactions SET received_at = id * 1000000")
                .await;
            place
                .number("SELECT min(id) AS n FROM user_interactions")
                .await
        }
    };
    let at = async |seconds: i64, micros: u32| {
        let time = chrono::DateTime::from_timestamp(seconds, micros * 1_000).unwrap();
        store.position_at(time).await.unwrap()
    };
    let behind = |n: i64| match place.url {
        Some(_) => Position(n << 12 | 0xfff),
        None => Position(n),
    };
    assert_eq!(at(first, 0).await, Position::START);
    assert_eq!(at(first, 1).await, behind(first));
    assert_eq!(at(22, 0).await, behind(20), "21 is gone");
    assert_eq!(at(21, 0).await, behind(20));
    assert_eq!(at(20, 0).await, behind(19));
    let end = end_of(place).await;
    assert_eq!(at(1 << 30, 0).await, end);
}

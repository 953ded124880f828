//! An event whose handler kills its process has failed after its attempts; its neighbours succeed, and do not wait for
//! what may have killed it.

use super::child::{BEGUN, MAX_ATTEMPTS, RELEASED, Reactor};
use super::effects::{Effects, End};
use crate::followers::{Place, SOON, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use std::time::Duration;

/// Each attempt that kills the process is found out when its claim has run out, 15 s after the time of an attempt.
const LATER: Duration = Duration::from_secs(120);

#[actix_rt::test]
async fn a_handler_that_kills_its_process_spends_its_own_attempts() {
    // On both stores at once: most of the time passes with waiting.
    let (postgres, sqlite) = (Place::postgres().await, Place::sqlite().await);
    futures::join!(kills_its_process(&postgres), kills_its_process(&sqlite));
}

async fn kills_its_process(place: &Place) {
    Effects::of(place).create().await;
    let mut events: Vec<_> = (0..21).map(|_| event()).collect();
    events[7] = typed("poison");
    place.write(events).await;
    let mut starts = 1;
    let mut process = Reactor::start(place, End::Commit);
    let runs = eventually(LATER, "all runs have ended", async || {
        if process.is_dead() {
            starts += 1;
            process = Reactor::start(place, End::Commit);
        }
        let runs = place.runs().await;
        let ended = runs.iter().filter(|run| run.state != "open").count();
        (ended == 21).then_some(runs)
    })
    .await;
    for (n, run) in runs.iter().enumerate() {
        if n != 7 {
            assert_eq!(
                (run.state.as_str(), run.attempts),
                ("succeeded", 1),
                "{n} {run:?}"
            );
        }
    }
    assert_eq!(runs[7].state, "failed");
    let error = runs[7].error.as_deref().unwrap();
    assert!(error.contains("no outcome: its process ended"), "{error}");
    // The first start is that of an attempt that nothing knows of; then come those that count.
    assert_eq!(starts, 1 + 1 + MAX_ATTEMPTS);
    place.processed(20, 1).await;
    assert_eq!(Effects::of(place).done().await.len(), 20);
}

#[actix_rt::test]
async fn what_may_have_killed_a_process_holds_up_no_other_run() {
    let (postgres, sqlite) = (Place::postgres().await, Place::sqlite().await);
    futures::join!(holds_up_no_other(&postgres), holds_up_no_other(&sqlite));
}

/// Runs of a reaction that are in the queue.
async fn queued(place: &Place, reaction: &str) -> i64 {
    let queued = format!(
        "SELECT count(*) AS n FROM reaction_queue JOIN reactions ON id = reaction WHERE name = '{reaction}'"
    );
    place.number(&queued).await
}

async fn holds_up_no_other(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let mut process = Reactor::start(place, End::Commit);
    place.write(["held"; 3].map(typed).to_vec()).await;
    effects.noted(BEGUN, 3).await;
    place.write(vec![typed("retried")]).await;
    eventually(SOON, "the second attempt is under way", async || {
        let claimed =
            "SELECT count(*) AS n FROM reaction_queue WHERE attempts = 2 AND token IS NOT NULL";
        (place.number(claimed).await == 1).then_some(())
    })
    .await;
    place.write(vec![typed("poison")]).await;
    process.dies().await;
    let mut process = Reactor::start(place, End::Commit);
    // One of the slow ones has its turn, perhaps behind the one that kills, and the others wait for theirs.
    eventually(LATER, "a slow one has its turn", async || {
        if process.is_dead() {
            process = Reactor::start(place, End::Commit);
        }
        let done = effects.done().await;
        let begun = done.iter().filter(|one| *one == BEGUN).count() == 4;
        let is_isolated = queued(place, "held").await == 3 && queued(place, "effects").await > 0;
        (begun && is_isolated).then_some(())
    })
    .await;
    let done = effects.done().await.len();
    place.write((0..10).map(|_| event()).collect()).await;
    eventually(LATER, "the others go on", async || {
        if process.is_dead() {
            process = Reactor::start(place, End::Commit);
        }
        (effects.done().await.len() >= done + 10).then_some(())
    })
    .await;
    assert_eq!(queued(place, "held").await, 3);
    effects.note(RELEASED).await;
    let ended = "SELECT count(*) AS n FROM reaction_runs WHERE state <> 'open'";
    eventually(LATER, "all runs have ended", async || {
        if process.is_dead() {
            process = Reactor::start(place, End::Commit);
            place.write(vec![event()]).await;
        }
        let open = "SELECT count(*) AS n FROM reaction_runs WHERE state = 'open'";
        (place.number(open).await == 0 && place.number(ended).await >= 19).then_some(())
    })
    .await;
    let runs = place.runs().await;
    let failed: Vec<_> = runs.iter().filter(|run| run.state != "succeeded").collect();
    assert_eq!(failed.len(), 1, "{runs:?}");
    let error = failed[0].error.as_deref().unwrap();
    assert!(error.contains("no outcome: its process ended"), "{error}");
}

/// What a process has begun is in the queue before another one begins anything in its place.
#[actix_rt::test]
async fn a_first_attempt_that_kills_at_once_is_isolated_too() {
    let (postgres, sqlite) = (Place::postgres().await, Place::sqlite().await);
    futures::join!(is_isolated_too(&postgres), is_isolated_too(&sqlite));
}

async fn is_isolated_too(place: &Place) {
    let effects = Effects::of(place);
    effects.create().await;
    let process = Reactor::start(place, End::Commit);
    let slow = ["held", "held", "held", "held", "fatal"].map(typed);
    place.write(slow.to_vec()).await;
    effects.noted(BEGUN, 4).await;
    drop(process);
    let mut process = Reactor::start(place, End::Commit);
    eventually(SOON, "all are in the queue", async || {
        if process.is_dead() {
            process = Reactor::start(place, End::Commit);
        }
        (queued(place, "held").await == 5).then_some(())
    })
    .await;
}

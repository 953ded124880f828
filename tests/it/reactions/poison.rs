//! An event whose handler kills its process has failed after its attempts; its neighbours succeed.

use super::child::{MAX_ATTEMPTS, Reactor};
use super::effects::{Effects, End};
use crate::followers::{Place, typed};
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

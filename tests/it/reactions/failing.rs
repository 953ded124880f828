//! Receivers that fail: at random, and always.

use super::starts::Starts;
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;
use serde_json::{Value, json};
use std::time::Duration;

/// How many events a receiver gets that fails at random; `ECLUSA_TEST_RUNS` for more.
const RUNS: usize = 1_000;
const ALWAYS_FAILING: usize = 30;
/// Of 10,000 runs on a slow machine.
const LATER: Duration = Duration::from_secs(600);

on_both_stores! {
    each_attempt_is_counted_until_the_run_ends,
}

async fn each_attempt_is_counted_until_the_run_ends(place: &Place) {
    let runs = match std::env::var("ECLUSA_TEST_RUNS") {
        Ok(runs) => runs.parse().unwrap(),
        Err(_) => RUNS,
    };
    let flaky = Starts::count(|_, _| match rand::random_bool(0.3) {
        true => 500,
        false => 204,
    });
    let (flaky, broken) = (flaky.await, Starts::count(|_, _| 500).await);
    let reaction = |name: &str, starts: &Starts, max_attempts: u32| {
        json!({
            "name": name,
            "on": [name],
            "webhook": starts.webhook(),
            "max_attempts": max_attempts,
            "backoff": {"base": "10ms", "max": "1s"},
        })
    };
    // So many that not one of 10,000 runs fails each time.
    let reactions = json!([
        reaction("flaky", &flaky, 25),
        reaction("broken", &broken, 3)
    ]);
    let app = place.app().set("reactions", reactions).start().await;
    app.wait_ready().await;
    let event = |kind| json!({"userId": "u", "eventType": kind});
    let broken_ones: Value = (0..ALWAYS_FAILING).map(|_| event("broken")).collect();
    assert!(
        app.post("/v1/events", &broken_ones)
            .await
            .status()
            .is_success()
    );
    let mut left = runs;
    while left > 0 {
        let some = left.min(250);
        let events: Value = (0..some).map(|_| event("flaky")).collect();
        assert!(app.post("/v1/events", &events).await.status().is_success());
        left -= some;
    }
    let all = (runs + ALWAYS_FAILING) as i64;
    eventually(LATER, "all runs have ended", async || {
        let ended = "SELECT count(*) AS n FROM reaction_runs WHERE state <> 'open'";
        (place.number(ended).await == all).then_some(())
    })
    .await;
    let rows = place.runs().await;
    let (mut succeeded, failed): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|run| run.state == "succeeded");
    assert_eq!((succeeded.len(), failed.len()), (runs, ALWAYS_FAILING));
    // As many attempts of each run as the receiver has seen starts.
    succeeded.sort_by_key(|run| run.attempts);
    let attempts: Vec<i64> = succeeded.iter().map(|run| run.attempts.into()).collect();
    let mut starts: Vec<i64> = flaky.all().into_values().map(Into::into).collect();
    starts.sort_unstable();
    assert_eq!(attempts, starts);
    assert!(starts.iter().any(|starts| *starts > 1));
    let wrong =
        |run: &&super::observing::RunRow| (run.state.as_str(), run.attempts) != ("failed", 3);
    assert!(!failed.iter().any(|run| wrong(&run)), "{failed:?}");
    let starts = broken.all();
    assert!(starts.len() == ALWAYS_FAILING && starts.values().all(|starts| *starts == 3));
    place.processed(runs as i64, ALWAYS_FAILING as i64).await;
}

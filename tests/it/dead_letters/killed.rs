//! Killed at every step: nothing is lost, nothing is there twice.

use super::direct_modes::{allow, forbid};
use super::*;
use crate::harness::temp_dir;

const LETTERS: usize = 100;

/// Replays until it is killed, starts it again, and replays the rest.
async fn replay_killed(app: &mut App, point: &str) {
    arm(app, point, "1:1:kill").await;
    let replay = app
        .try_post("/v1/dead-letters/replay", "application/json", "{}")
        .await;
    assert!(replay.is_err(), "it was killed");
    app.wait_exit(SOON).await;
    app.start_again().await;
    app.wait_ready().await;
    let left = letters(app, "&state=dead").await.len();
    assert!(left > 0, "{left}");
    let answer = act(app, "replay", json!({})).await;
    assert_eq!(answer["failed"], 0);
    assert!(answer["next"].is_null());
}

#[tokio::test]
async fn a_replay_in_full_mode_that_is_killed_and_repeated() {
    let mut bench = Bench::full(|builder| builder).await;
    for (round, point) in ["replay.after_send", "replay.after_mark"]
        .into_iter()
        .enumerate()
    {
        bench.sql(FORBID).await;
        bench.post("bad", round * LETTERS, LETTERS).await;
        wait_dead(&bench.app, LETTERS).await;
        bench.sql(ALLOW).await;
        replay_killed(&mut bench.app, point).await;
        let total = ((round + 1) * LETTERS) as i64;
        bench.wait_count("user_interactions", total).await;
        bench
            .wait_count("dead_letters WHERE state = 'replayed'", total)
            .await;
    }
    let sql = "(SELECT DISTINCT event_data->>'n' FROM user_interactions) AS n";
    assert_eq!(bench.count(sql).await, 2 * LETTERS as i64);
}

#[tokio::test]
async fn a_replay_in_embedded_mode_that_is_killed_and_repeated() {
    let dir = temp_dir("letters-");
    let mut app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    forbid(dir.path());
    post(&app, "bad", 0, LETTERS).await;
    allow(dir.path());
    replay_killed(&mut app, "replay.after_send").await;
    let page = app.get_json("/v1/events?limit=1000").await;
    assert_eq!(page["events"].as_array().unwrap().len(), LETTERS);
    assert_eq!(letters(&app, "&state=replayed").await.len(), LETTERS);
}

#[tokio::test]
async fn a_burial_that_is_killed_leaves_one_letter_of_each() {
    let mut bench = Bench::full(|builder| builder).await;
    bench.sql(FORBID).await;
    for (round, point) in [
        "retry_supervisor.after_publish",
        "dead_letter_projector.bury",
        "dead_letter_projector.after_commit",
    ]
    .into_iter()
    .enumerate()
    {
        arm(&bench.app, point, "0:1:kill").await;
        bench.post("bad", round * 10, 10).await;
        let exited = bench.app.wait_exit(SOON).await;
        assert!(!exited.success(), "{point}");
        bench.app.start_again().await;
        bench.app.wait_ready().await;
        bench
            .wait_count("dead_letters", (round as i64 + 1) * 10)
            .await;
        // Nothing more comes of it.
        eventually(SOON, "all is settled", async || {
            (bench.app.metric("eclusa_events_in_flight").await == 0.0).then_some(())
        })
        .await;
        assert_eq!(bench.count("dead_letters").await, (round as i64 + 1) * 10);
    }
    bench.sql(ALLOW).await;
    act(&bench.app, "replay", json!({})).await;
    bench.wait_count("user_interactions", 30).await;
}

#[tokio::test]
async fn the_projector_survives_a_panic() {
    let bench = Bench::full(|builder| builder).await;
    bench.sql(FORBID).await;
    for point in [
        "dead_letter_projector.bury",
        "dead_letter_projector.after_commit",
    ] {
        arm(&bench.app, point, "0:1:panic").await;
    }
    bench.post("bad", 0, 10).await;
    let labels = [("actor", "dead_letter_projector"), ("cause", "panic")];
    let name = "eclusa_actor_restarts_total";
    eventually(SOON, "it has restarted twice", async || {
        (bench.app.metric_with(name, &labels).await == 2.0).then_some(())
    })
    .await;
    bench.wait_count("dead_letters", 10).await;
}

//! Runs that have ended are made again: those that are asked for, and no other.

use super::{Bench, Mood, detail, in_both_modes, set_of};
use crate::harness::eventually;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

in_both_modes! {
    exactly_the_failed_ones_are_made_again(),
    a_limit_a_type_and_a_dry_run_are_obeyed(),
    a_rate_spreads_what_is_due(),
    what_has_succeeded_is_made_again_if_asked_for(),
    what_the_log_has_lost_is_counted(),
    a_key_keeps_its_order({"name": "ordered", "on": ["step"], "max_attempts": 1, "order_by": "userId"}),
    what_cannot_be_made_again_is_explained(),
}

async fn exactly_the_failed_ones_are_made_again(bench: &mut Bench) {
    bench.send("order.paid", 20).await;
    bench.have("SUCCESS", 20).await;
    bench.hook.is(Mood::Fails);
    let bad = bench.send("order.paid", 150).await;
    bench.have("FAILED", 150).await;
    bench.hook.is(Mood::Takes);
    let before = bench.hook.calls();
    let reply = bench.reprocess(json!({"reaction": "hook"})).await;
    let done =
        json!({"dryRun": false, "matched": 150, "reprocessed": 150, "gone": 0, "next": null});
    assert_eq!(reply, done);
    bench.have("SUCCESS", 170).await;
    assert_eq!(bench.hook.calls() - before, 150);
    let runs = bench.runs("limit=1000").await;
    let again: Vec<Value> = runs
        .into_iter()
        .filter(|run| run["attempts"] == 2)
        .collect();
    assert_eq!(set_of(&again, "eventId"), bad.into_iter().collect());
    let history = &again[0]["history"];
    assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
    assert!(
        history[0]["error"].as_str().unwrap().contains("400"),
        "{history}"
    );
    assert_eq!(again[0]["error"], Value::Null);
    let processed = bench.app.get_json("/v1/events?limit=1000").await;
    let processed = processed["events"].as_array().unwrap().iter();
    assert!(
        processed
            .into_iter()
            .all(|event| event["processed"] == true)
    );
    let counts = &bench.app.get_json("/v1/reactions/hook").await["counts"];
    assert_eq!(
        counts,
        &json!({"succeeded": 170, "failed": 0, "cancelled": 0, "queued": 0})
    );
    let none = bench.reprocess(json!({"reaction": "hook"})).await;
    assert_eq!((&none["matched"], &none["next"]), (&json!(0), &Value::Null));
}

async fn a_limit_a_type_and_a_dry_run_are_obeyed(bench: &mut Bench) {
    bench.hook.is(Mood::Fails);
    for event_type in ["order.a", "order.b", "order.a"] {
        bench.send(event_type, 4).await;
    }
    let failed = bench.have("FAILED", 12).await;
    let dry = bench
        .reprocess(json!({"reaction": "hook", "dryRun": true, "eventType": "order.a"}))
        .await;
    assert_eq!(
        (
            &dry["dryRun"],
            &dry["matched"],
            &dry["reprocessed"],
            &dry["next"]
        ),
        (&json!(true), &json!(8), &json!(8), &Value::Null)
    );
    assert_eq!(bench.have("FAILED", 12).await, failed);
    bench.hook.is(Mood::Takes);
    let first = bench
        .reprocess(json!({"reaction": "hook", "eventType": "order.a", "limit": 5}))
        .await;
    assert_eq!(first["reprocessed"], 5);
    let rest = bench.have("FAILED", 7).await;
    // The oldest ones, which a list has last.
    bench.have("SUCCESS", 5).await;
    assert_eq!(rest[..3], failed[..3]);
    assert_eq!(rest[3..], failed[4..8]);
    let next = first["next"].clone();
    let second = bench
        .reprocess(json!({"reaction": "hook", "eventType": "order.a", "cursor": next}))
        .await;
    assert_eq!(
        (&second["reprocessed"], &second["next"]),
        (&json!(3), &Value::Null)
    );
    bench.have("SUCCESS", 8).await;
    assert_eq!(bench.have("FAILED", 4).await, failed[4..8]);
}

async fn a_rate_spreads_what_is_due(bench: &mut Bench) {
    bench.hook.is(Mood::Fails);
    bench.send("order.paid", 9).await;
    bench.have("FAILED", 9).await;
    bench.hook.is(Mood::Takes);
    let began = Utc::now();
    let reply = bench
        .reprocess(json!({"reaction": "hook", "ratePerSecond": 4, "limit": 5}))
        .await;
    // The request is not held open, and the next part goes on behind the one before.
    let next = reply["next"].clone();
    bench
        .reprocess(json!({"reaction": "hook", "ratePerSecond": 4, "cursor": next}))
        .await;
    let runs = bench.have("SUCCESS", 9).await;
    let ended = runs.iter().map(|run| {
        let text = run["finishedAt"].as_str().unwrap();
        text.parse::<DateTime<Utc>>().unwrap()
    });
    let last = (ended.max().unwrap() - began).num_milliseconds();
    assert!((1_900..20_000).contains(&last), "{last} ms");
}

async fn what_has_succeeded_is_made_again_if_asked_for(bench: &mut Bench) {
    bench.send("order.paid", 6).await;
    bench.have("SUCCESS", 6).await;
    let reply = bench
        .reprocess(json!({"reaction": "hook", "status": "SUCCESS", "limit": 4}))
        .await;
    assert_eq!(reply["reprocessed"], 4);
    eventually(super::SOON, "they are made again", async || {
        (bench.hook.calls() == 10).then_some(())
    })
    .await;
    bench.have("SUCCESS", 6).await;
    let counts = &bench.app.get_json("/v1/reactions/hook").await["counts"];
    assert_eq!(counts["succeeded"], 6);
}

async fn what_the_log_has_lost_is_counted(bench: &mut Bench) {
    bench.hook.is(Mood::Fails);
    bench.send("order.old", 2).await;
    bench.send("order.new", 3).await;
    bench.have("FAILED", 5).await;
    bench
        .sql("DELETE FROM user_interactions WHERE event_type = 'order.old'")
        .await;
    bench.hook.is(Mood::Takes);
    let reply = bench.reprocess(json!({"reaction": "hook"})).await;
    assert_eq!(
        (&reply["matched"], &reply["reprocessed"], &reply["gone"]),
        (&json!(5), &json!(3), &json!(2))
    );
    bench.have("SUCCESS", 3).await;
    bench.have("FAILED", 2).await;
}

async fn a_key_keeps_its_order(bench: &mut Bench) {
    bench.hook.is(Mood::Fails);
    bench.send("step", 9).await;
    eventually(super::SOON, "all have failed", async || {
        (bench.runs_of("ordered", "status=FAILED").await.len() == 9).then_some(())
    })
    .await;
    bench.hook.is(Mood::Hangs);
    let reply = bench.reprocess(json!({"reaction": "ordered"})).await;
    assert_eq!(reply["reprocessed"], 9);
    // The first ones of the three users, at once.
    eventually(super::SOON, "three are under way", async || {
        (bench.runs_of("ordered", "state=running").await.len() == 3).then_some(())
    })
    .await;
    assert_eq!(bench.runs_of("ordered", "state=available").await.len(), 6);
    bench.hook.is(Mood::Takes);
    let runs = eventually(super::SOON, "all have succeeded", async || {
        let runs = bench.runs_of("ordered", "status=SUCCESS").await;
        (runs.len() == 9).then_some(runs)
    })
    .await;
    // Newest first: of each of the three users every third.
    for user in 0..3 {
        let times: Vec<&str> = runs
            .iter()
            .skip(user)
            .step_by(3)
            .map(|run| run["finishedAt"].as_str().unwrap())
            .collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    }
}

async fn what_cannot_be_made_again_is_explained(bench: &mut Bench) {
    for (body, status, part) in [
        (json!({}), 400, "missing field `reaction`"),
        (json!({"reaction": "absent"}), 404, "GET /v1/reactions"),
        (
            json!({"reaction": "hook", "status": "PENDING"}),
            400,
            "made anyway",
        ),
        (
            json!({"reaction": "hook", "status": "failed"}),
            400,
            "SUCCESS, FAILED",
        ),
        (json!({"reaction": "hook", "limit": 0}), 400, "limit is 0"),
        (json!({"reaction": "hook", "to": "now"}), 400, "to is"),
        (
            json!({"reaction": "hook", "cursor": "1-1"}),
            400,
            "cursor must be",
        ),
        (
            json!({"reaction": "hook", "cursor": "7-1-1-1"}),
            410,
            "generation 7",
        ),
        (json!({"reaction": "hook", "ids": []}), 400, "unknown field"),
    ] {
        let (given, problem) = bench.post("/v1/reactions/reprocess", body).await;
        assert_eq!(given, status, "{problem}");
        assert!(detail(&problem).contains(part), "{problem}");
    }
}

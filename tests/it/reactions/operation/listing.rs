//! Reactions, runs and events with their runs as they are shown.

use super::{Bench, Mood, SOON, detail, in_both_modes, set_of};
use crate::harness::eventually;
use chrono::Utc;
use serde_json::{Value, json};
use std::collections::BTreeSet;

in_both_modes! {
    runs_are_listed_by_status_and_time(),
    what_is_not_decided_is_found_among_other_events(),
    thousands_that_are_not_decided_are_listed_once(),
    what_a_condition_selects_is_searched_for_in_parts(
        {"name": "rare", "on": ["bulk"], "when": "eventData.n == 5"}
    ),
    a_condition_and_lanes_say_which_events_have_runs(
        {"name": "few", "on": ["*"], "when": "userId == 'u1'", "lanes": 3, "start": "now"}
    ),
    an_expired_outcome_is_not_pending_again(),
    what_cannot_be_read_is_explained(),
}

async fn runs_are_listed_by_status_and_time(bench: &mut Bench) {
    let good = bench.send("order.paid", 5).await;
    bench.have("SUCCESS", 5).await;
    bench.hook.is(Mood::Fails);
    let between = Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let bad = bench.send("order.sent", 4).await;
    bench.send("other", 3).await;
    let failed = bench.have("FAILED", 4).await;
    assert_eq!(set_of(&failed, "eventId"), bad.iter().cloned().collect());
    let run = &failed[0];
    assert_eq!(
        (
            &run["state"],
            &run["attempts"],
            &run["history"],
            &run["due"]
        ),
        (&json!("failed"), &json!(1), &json!([]), &Value::Null)
    );
    assert!(run["error"].as_str().unwrap().contains("400"), "{run}");
    assert!(run["durationMs"].as_f64().unwrap() > 0.0 && run["worker"].is_string());
    assert!(run["finishedAt"].is_string(), "{run}");

    assert_eq!(
        bench.post("/v1/reactions/hook/pause", json!({})).await.0,
        200
    );
    let open = bench.send("order.new", 6).await;
    let pending = bench.have("PENDING", 6).await;
    assert_eq!(set_of(&pending, "eventId"), open.iter().cloned().collect());
    for run in &pending {
        assert_eq!(
            (&run["state"], &run["status"], &run["attempts"]),
            (&json!("available"), &json!("PENDING"), &json!(0))
        );
    }
    assert_eq!(bench.runs("state=available").await, pending);
    assert!(bench.runs("state=retryable").await.is_empty());
    assert!(bench.runs("state=available&status=FAILED").await.is_empty());

    let all = bench.runs("").await;
    assert_eq!(all.len(), 15);
    let every: BTreeSet<String> = [&good[..], &bad, &open].concat().into_iter().collect();
    assert_eq!(set_of(&all, "eventId"), every);
    // The newest first, whatever the size of the pages.
    let newest: BTreeSet<String> = open.iter().cloned().collect();
    assert_eq!(set_of(&all[..6], "eventId"), newest);
    assert_eq!(bench.runs("limit=4").await, all);
    assert_eq!(bench.runs("limit=1&status=SUCCESS").await, all[10..]);
    assert_eq!(bench.runs(&format!("from={between}")).await, all[..10]);
    assert_eq!(
        bench.runs(&format!("to={between}&limit=2")).await,
        all[10..]
    );

    let id = pending[0]["id"].as_str().unwrap();
    assert_eq!(
        &bench.app.get_json(&format!("/v1/runs/{id}")).await,
        &pending[0]
    );
    for run in [&pending[0], &failed[0], &all[14]] {
        let event = run["eventId"].as_str().unwrap();
        let of_event = bench
            .app
            .get_json(&format!("/v1/events/{event}/runs"))
            .await;
        assert_eq!(of_event["runs"], json!([run]));
    }
    let reactions = bench.app.get_json("/v1/reactions").await;
    let shown = &reactions["reactions"][0];
    assert_eq!(
        (
            &shown["name"],
            &shown["types"],
            &shown["lanes"],
            &shown["state"]
        ),
        (
            &json!("hook"),
            &json!(["order.*"]),
            &json!(2),
            &json!("paused")
        )
    );
    let counts = json!({"succeeded": 5, "failed": 4, "cancelled": 0, "queued": 0});
    assert_eq!(
        (&shown["counts"], &shown["paused"]),
        (&counts, &json!(true))
    );
    assert!(shown["behind"]["events"].as_u64().unwrap() >= 6, "{shown}");
    let mut alone = bench.app.get_json("/v1/reactions/hook").await;
    alone["behind"] = shown["behind"].clone();
    assert_eq!(shown, &alone);
}

async fn what_is_not_decided_is_found_among_other_events(bench: &mut Bench) {
    bench.post("/v1/reactions/hook/pause", json!({})).await;
    let mut ids = bench.send("order.first", 3).await;
    bench.send("other", 20_000).await;
    ids.extend(bench.send("order.last", 2).await);
    let found = eventually(SOON, "all are found", async || {
        let found = bench.runs("status=PENDING&limit=2").await;
        (found.len() == 5).then_some(found)
    })
    .await;
    assert_eq!(set_of(&found, "eventId"), ids.into_iter().collect());
}

async fn thousands_that_are_not_decided_are_listed_once(bench: &mut Bench) {
    bench.post("/v1/reactions/hook/pause", json!({})).await;
    let ids = bench.send("order.paid", 12_000).await;
    eventually(SOON, "the last one has its number", async || {
        let newest = bench.app.get_json("/v1/reactions/hook/runs?limit=1").await;
        (newest["runs"][0]["eventId"] == ids[11_999].as_str()).then_some(())
    })
    .await;
    let found = bench.runs("limit=1000").await;
    let found: Vec<&str> = found
        .iter()
        .map(|run| run["eventId"].as_str().unwrap())
        .collect();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(found, newest_first);
}

async fn what_a_condition_selects_is_searched_for_in_parts(bench: &mut Bench) {
    bench.post("/v1/reactions/rare/pause", json!({})).await;
    let first = bench.send("bulk", 70_000).await;
    let last = bench.send("bulk", 10).await;
    let path = "/v1/reactions/rare/runs?status=PENDING&limit=2";
    let page = eventually(SOON, "the last one has its number", async || {
        let page = bench.app.get_json(path).await;
        (page["runs"].as_array().unwrap().len() == 1).then_some(page)
    })
    .await;
    assert_eq!(page["runs"][0]["eventId"], last[5].as_str());
    assert!(page["next"].is_string(), "the search is not at its end");
    let found = bench.runs_of("rare", "status=PENDING&limit=2").await;
    let wanted = [&first[5], &last[5]].map(String::clone);
    assert_eq!(set_of(&found, "eventId"), wanted.into_iter().collect());
}

async fn a_condition_and_lanes_say_which_events_have_runs(bench: &mut Bench) {
    bench.post("/v1/reactions/few/pause", json!({})).await;
    let ids = bench.send("order.paid", 30).await;
    bench.have("SUCCESS", 30).await;
    let few = bench.runs_of("few", "").await;
    let wanted = ids.iter().skip(1).step_by(3).cloned().collect();
    assert_eq!(set_of(&few, "eventId"), wanted);
    let runs = |id: &str| format!("/v1/events/{id}/runs");
    let both = bench.app.get_json(&runs(&ids[1])).await;
    let names: Vec<&Value> = both["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["reaction"])
        .collect();
    assert_eq!(names, ["few", "hook"]);
    let one = bench.app.get_json(&runs(&ids[0])).await;
    assert_eq!(one["runs"].as_array().unwrap().len(), 1);
    bench.post("/v1/reactions/few/resume", json!({})).await;
    eventually(SOON, "they have succeeded", async || {
        (bench.runs_of("few", "status=SUCCESS").await == bench.runs_of("few", "").await)
            .then_some(())
    })
    .await;
    assert_eq!(bench.runs_of("few", "").await.len(), 10);
    assert_eq!(bench.hook.calls(), 40);
}

/// One of the two lanes is far behind, and all outcomes are gone.
async fn an_expired_outcome_is_not_pending_again(bench: &mut Bench) {
    let ids = bench.send("order.paid", 20).await;
    bench.have("SUCCESS", 20).await;
    bench.app.sigterm();
    bench.app.wait_exit(SOON).await;
    bench
        .sql(
            "DELETE FROM reaction_runs; \
             UPDATE follower_positions SET position = 0 WHERE follower = 'hook:0'",
        )
        .await;
    let pending = bench.succeed(&["runs", "hook"]).await;
    let listed = pending.lines().count();
    assert!((1..20).contains(&listed), "{pending}");
    let mut shown = 0;
    for id in &ids {
        let run = format!("{id}.hook");
        let (is_shown, _) = bench.command(&["show", &run]).await;
        assert_eq!(is_shown, pending.contains(&run), "{run}");
        shown += usize::from(is_shown);
    }
    assert_eq!(shown, listed);
}

async fn what_cannot_be_read_is_explained(bench: &mut Bench) {
    let id = bench.send("other", 1).await.remove(0);
    let run = format!("/v1/runs/{id}");
    for (path, status, part) in [
        ("/v1/reactions/absent", 404, "GET /v1/reactions"),
        ("/v1/reactions/a%00b", 404, "GET /v1/reactions"),
        ("/v1/reactions/absent/runs", 404, "GET /v1/reactions"),
        ("/v1/reactions/reprocess", 405, "takes POST"),
        (
            "/v1/reactions/hook/runs?status=done",
            400,
            "SUCCESS, FAILED, PENDING",
        ),
        (
            "/v1/reactions/hook/runs?state=PENDING",
            400,
            "available, scheduled",
        ),
        ("/v1/reactions/hook/runs?limit=0", 400, "between 1 and 1000"),
        ("/v1/reactions/hook/runs?from=today", 400, "from is"),
        ("/v1/reactions/hook/runs?cursor=7", 400, "cursor must be"),
        ("/v1/reactions/hook/runs?cursor=7-8191", 410, "generation 7"),
        (&run, 400, "welcome-mail"),
        (&format!("{run}.hook"), 404, "GET /v1/events/"),
        (&format!("{run}.absent"), 404, "GET /v1/events/"),
        ("/v1/events/absent/runs", 404, "no event absent"),
    ] {
        let response = bench.app.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert!(detail(&problem).contains(part), "{path}: {problem}");
    }
    let none = bench.app.get_json(&format!("/v1/events/{id}/runs")).await;
    assert_eq!(none, json!({"runs": []}));
}

//! Commands to reactions and runs, and who may give them.

use super::{Bench, Mood, SOON, detail, in_both_modes};
use crate::harness::{App, eventually, temp_dir};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

in_both_modes! {
    a_paused_reaction_starts_nothing_and_goes_on(
        {"name": "patient", "on": ["slow"], "backoff": {"base": "1h", "max": "1h"}}
    ),
    a_run_is_cancelled_unless_it_is_under_way_or_has_ended(
        {"name": "patient", "on": ["slow"], "backoff": {"base": "1h", "max": "1h"}},
        {"name": "eager", "on": ["quick"], "backoff": {"base": "10ms", "max": "10ms"}},
        {"name": "later", "on": ["late"], "delay": "1h"}
    ),
    a_reaction_that_no_process_runs_is_removed(),
}

async fn a_paused_reaction_starts_nothing_and_goes_on(bench: &mut Bench) {
    let (status, paused) = bench.post("/v1/reactions/hook/pause", json!({})).await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")));
    bench.send("order.paid", 5).await;
    bench.have("PENDING", 5).await;
    let (status, problem) = bench.post("/v1/reactions/hook/pause", json!({})).await;
    assert_eq!(status, 409, "{problem}");
    assert!(detail(&problem).contains("is paused"), "{problem}");
    // Another reaction goes on meanwhile, and what it has in the queue stays there.
    bench.hook.is(Mood::Fails);
    let slow = bench.send("slow", 1).await.remove(0);
    bench.is_in(&format!("{slow}.patient"), "retryable").await;
    assert_eq!(bench.hook.calls(), 1);
    bench.hook.is(Mood::Takes);
    let (status, resumed) = bench.post("/v1/reactions/hook/resume", json!({})).await;
    assert_eq!((status, &resumed["state"]), (200, &json!("running")));
    bench.have("SUCCESS", 5).await;
    let (status, problem) = bench.post("/v1/reactions/hook/resume", json!({})).await;
    assert_eq!(status, 409, "{problem}");
    for action in ["pause", "resume", "remove"] {
        let path = format!("/v1/reactions/absent/{action}");
        let (status, problem) = bench.post(&path, json!({})).await;
        assert_eq!(status, 404);
        assert!(detail(&problem).contains("GET /v1/reactions"), "{problem}");
    }
    let (status, problem) = bench.post("/v1/followers/hook:0/pause", json!({})).await;
    assert_eq!(status, 409);
    assert!(detail(&problem).contains("eclusa reactions"), "{problem}");
}

async fn a_run_is_cancelled_unless_it_is_under_way_or_has_ended(bench: &mut Bench) {
    let cancel = async |run: &str| {
        bench
            .post(&format!("/v1/runs/{run}/cancel"), json!({}))
            .await
    };
    let succeeded = format!("{}.hook", bench.send("order.paid", 1).await[0]);
    bench.is_in(&succeeded, "succeeded").await;
    bench.hook.is(Mood::Fails);
    let failed = format!("{}.hook", bench.send("order.paid", 1).await[0]);
    bench.is_in(&failed, "failed").await;
    let retryable = format!("{}.patient", bench.send("slow", 1).await[0]);
    bench.is_in(&retryable, "retryable").await;
    let scheduled = format!("{}.later", bench.send("late", 1).await[0]);
    let shown = bench.is_in(&scheduled, "scheduled").await;
    assert!(
        shown["due"].is_string() && shown["status"] == "PENDING",
        "{shown}"
    );
    bench.post("/v1/reactions/hook/pause", json!({})).await;
    let available = format!("{}.hook", bench.send("order.paid", 1).await[0]);
    bench.is_in(&available, "available").await;

    for (run, attempts) in [(&retryable, 1), (&scheduled, 0), (&available, 0)] {
        let (status, shown) = cancel(run).await;
        assert_eq!(status, 200, "{shown}");
        assert_eq!(
            (
                &shown["state"],
                &shown["status"],
                &shown["attempts"],
                &shown["error"]
            ),
            (
                &json!("cancelled"),
                &Value::Null,
                &json!(attempts),
                &json!("cancelled by command")
            )
        );
    }
    for (run, state) in [
        (&retryable, "cancelled"),
        (&failed, "failed"),
        (&succeeded, "succeeded"),
    ] {
        let (status, problem) = cancel(run).await;
        assert_eq!(status, 409);
        assert!(
            detail(&problem).contains(&format!("it is {state}")),
            "{problem}"
        );
    }
    // The lane passes it.
    let calls = bench.hook.calls();
    bench.hook.is(Mood::Takes);
    bench.post("/v1/reactions/hook/resume", json!({})).await;
    let last = format!("{}.hook", bench.send("order.paid", 1).await[0]);
    bench.is_in(&last, "succeeded").await;
    bench.is_in(&available, "cancelled").await;
    assert_eq!(bench.hook.calls(), calls + 1);

    bench.hook.is(Mood::Fails);
    let quick = format!("{}.eager", bench.send("quick", 1).await[0]);
    bench.hook.is(Mood::Hangs);
    let shown = eventually(SOON, "a claimed attempt hangs", async || {
        let shown = bench.app.get_json(&format!("/v1/runs/{quick}")).await;
        assert_ne!(shown["state"], "failed", "all attempts had failed before");
        (shown["state"] == "running").then_some(shown)
    })
    .await;
    assert!(
        shown["worker"].is_string() && shown["due"].is_string(),
        "{shown}"
    );
    let (status, problem) = cancel(&quick).await;
    assert_eq!(status, 409);
    assert!(detail(&problem).contains("under way"), "{problem}");

    assert_eq!(cancel("x.hook").await.0, 400);
    let absent = "00000000-0000-4000-8000-000000000000.hook";
    assert_eq!(cancel(absent).await.0, 404);
    let counts = bench.app.get_json("/v1/reactions").await;
    let cancelled = |n: usize| counts["reactions"][n]["counts"]["cancelled"].clone();
    // Named eager, hook, later, patient.
    assert_eq!([0, 1, 2, 3].map(cancelled), [0, 1, 1, 1].map(Value::from));
}

async fn a_reaction_that_no_process_runs_is_removed(bench: &mut Bench) {
    bench.send("order.paid", 2).await;
    bench.have("SUCCESS", 2).await;
    let (status, problem) = bench.post("/v1/reactions/hook/remove", json!({})).await;
    assert_eq!(status, 409);
    assert!(detail(&problem).contains("runs reaction hook"), "{problem}");
    bench.app.sigterm();
    bench.app.wait_exit(SOON).await;
    bench.app.rewrite_config("reactions", json!([]));
    bench.app.start_again().await;
    bench.app.wait_ready().await;
    let (status, _) = bench.post("/v1/reactions/hook/remove", json!({})).await;
    assert_eq!(status, 204);
    assert_eq!(bench.app.get("/v1/reactions/hook").await.status(), 404);
    let list = bench.app.get_json("/v1/reactions").await;
    assert_eq!(list, json!({"reactions": []}));
}

#[tokio::test]
async fn reading_and_commanding_need_their_scopes() {
    let folder = temp_dir("operation-");
    let hash = |key: &str| format!("sha256:{:x}", Sha256::digest(key));
    let keys = ["ingest", "read", "admin"]
        .map(|scope| json!({"name": scope, "hash": hash(scope), "scopes": [scope]}));
    let app = App::builder()
        .embedded(folder.path())
        .set("auth.keys", keys.to_vec())
        .set("reactions", json!([{"name": "r", "on": ["a"], "log": {}}]))
        .start()
        .await;
    app.wait_ready().await;
    let run = "/v1/runs/00000000-0000-4000-8000-000000000000.r";
    let reads = [
        "/v1/reactions",
        "/v1/reactions/r",
        "/v1/reactions/r/runs",
        run,
        "/v1/events/e/runs",
    ];
    let cancel = format!("{run}/cancel");
    let commands = [
        "/v1/reactions/r/pause",
        "/v1/reactions/r/resume",
        "/v1/reactions/r/remove",
        "/v1/reactions/reprocess",
        &cancel,
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |path: &str, is_command: bool, key: Option<&str>| {
        let url = format!("{}{path}", app.url());
        let request = match is_command {
            true => client.post(url).json(&json!({"reaction": "r"})),
            false => client.get(url),
        };
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    for (path, is_command) in reads
        .iter()
        .map(|path| (path, false))
        .chain(commands.iter().map(|path| (path, true)))
    {
        assert_eq!(status(path, is_command, None).await, 401, "{path}");
        assert_eq!(
            status(path, is_command, Some("ingest")).await,
            403,
            "{path}"
        );
        let reader = status(path, is_command, Some("read")).await;
        assert_eq!(reader == 403, is_command, "{path}: {reader}");
        let admin = status(path, is_command, Some("admin")).await;
        assert!([200, 404, 409].contains(&admin), "{path}: {admin}");
    }
}

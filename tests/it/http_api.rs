//! What callers of the HTTP door can rely on.

use crate::harness::{App, eventually, precondition, program, temp_dir};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

pub async fn embedded() -> (App, tempfile::TempDir) {
    let dir = temp_dir("http-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    (app, dir)
}

pub async fn body(response: reqwest::Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_event_is_taken_and_read_back_as_it_was() {
    let (app, _dir) = embedded().await;
    let event = json!({
        "userId": "ü-1", "eventType": "page.view", "sessionId": "s \"1\"",
        "timestamp": "2026-01-31T10:30:00.123456+01:00",
        "eventData": {"path": "/", "n": 12345678901234567890u64, "deep": [[{"a": null}]], "é": "\u{1F600}"},
    });
    let response = app.post("/v1/events", &event).await;
    assert_eq!(response.status(), 202);
    let answer = body(response).await;
    assert_eq!(answer["status"], "stored");
    let id = answer["id"].as_str().unwrap().to_owned();
    let stored = app.get_json(&format!("/v1/events/{id}")).await;
    for field in ["userId", "eventType", "sessionId", "eventData"] {
        assert_eq!(stored[field], event[field], "{field}");
    }
    assert_eq!(stored["timestamp"], "2026-01-31T09:30:00.123456Z");
    assert_eq!(stored["source"], "http");
    assert_eq!(stored["id"], id.as_str());
}

#[tokio::test]
async fn arrays_lines_and_the_alias_are_taken() {
    let (app, _dir) = embedded().await;
    let event = json!({"userId": "u", "eventType": "t"});
    let array = body(app.post("/v1/events", &json!([event, event])).await).await;
    assert_eq!(array["accepted"], 2);
    assert_ne!(array["items"][0]["id"], array["items"][1]["id"]);
    let lines = format!("{event}\n\n{event}\n{event}");
    let answer = app
        .post_as("/v1/events", "application/x-ndjson", lines)
        .await;
    assert_eq!(answer.status(), 202);
    assert_eq!(body(answer).await["accepted"], 3);
    assert_eq!(app.post("/events", &event).await.status(), 202);
    assert_eq!(app.metric("eclusa_events_stored_total").await, 6.0);
}

#[tokio::test]
async fn a_bad_item_refuses_its_request_and_all_bad_items_are_listed() {
    let (app, _dir) = embedded().await;
    let items = json!([
        {"userId": "u", "eventType": "t"},
        {"userId": 1, "eventType": ""},
        "text",
        {"userId": "u", "eventType": "t", "eventData": 7},
    ]);
    let response = app.post("/v1/events", &items).await;
    assert_eq!(response.status(), 400);
    let problem = body(response).await;
    let found: Vec<(u64, &str)> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["index"].as_u64().unwrap(), e["field"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [(1, "userId"), (1, "eventType"), (2, ""), (3, "eventData")]
    );
    assert_eq!(app.get_json("/v1/events").await["events"], json!([]));
}

#[tokio::test]
async fn ids_keys_and_repeats_store_each_event_once() {
    let (app, _dir) = embedded().await;
    let own = json!({"id": "order-1", "userId": "u", "eventType": "t", "eventData": {"a": 1}});
    let first = body(app.post("/v1/events", &own).await).await;
    let again = body(app.post("/v1/events", &own).await).await;
    assert_eq!(first["id"], again["id"]);
    assert_eq!(
        (&first["status"], &again["status"]),
        (&json!("stored"), &json!("duplicate"))
    );
    let by_own_id = app.get_json("/v1/events/order-1").await;
    assert_eq!(by_own_id["originalId"], "order-1");

    // The same content spelt otherwise is no conflict; other content is, and the first one stays.
    let respelt = r#"{"eventType":"t","eventData":{"a":1.0},"userId":"u","id":"order-1"}"#;
    app.post_as("/v1/events", "application/json", respelt).await;
    assert_eq!(app.metric("eclusa_events_conflicting_total").await, 0.0);
    let other = json!({"id": "order-1", "userId": "u", "eventType": "t", "eventData": {"a": 2}});
    assert_eq!(
        body(app.post("/v1/events", &other).await).await["status"],
        "duplicate"
    );
    assert_eq!(app.metric("eclusa_events_conflicting_total").await, 1.0);
    assert_eq!(
        app.get_json("/v1/events/order-1").await["eventData"],
        json!({"a": 1})
    );

    let keyed = || async {
        let client = reqwest::Client::new();
        let request = client.post(format!("{}/v1/events", app.url()));
        let items = json!([{"userId": "u", "eventType": "k"}, {"userId": "u", "eventType": "k"}]);
        let response = request
            .header("content-type", "application/json")
            .header("idempotency-key", "try-1")
            .body(items.to_string())
            .send()
            .await
            .unwrap();
        body(response).await
    };
    let (first, again) = (keyed().await, keyed().await);
    assert_eq!(first["items"][0]["id"], again["items"][0]["id"]);
    assert_eq!(first["items"][1]["id"], again["items"][1]["id"]);
    assert_ne!(first["items"][0]["id"], first["items"][1]["id"]);
    let listed = app.get_json("/v1/events?eventType=k").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn listings_filter_and_page_newest_first() {
    let (app, _dir) = embedded().await;
    for n in 0..25 {
        let event = json!({
            "userId": format!("u{}", n % 2), "eventType": format!("t{}", n % 5), "sessionId": "s",
            "eventData": {"n": n}, "timestamp": format!("2026-01-01T00:00:{n:02}Z"),
        });
        assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/events?userId=u1&limit=5".to_owned();
    loop {
        let page = app.get_json(&path).await;
        let events = page["events"].as_array().unwrap();
        seen.extend(events.iter().map(|e| e["eventData"]["n"].as_i64().unwrap()));
        match page["next"].as_str() {
            Some(cursor) => path = format!("/v1/events?userId=u1&limit=5&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(
        seen,
        (0..25).rev().filter(|n| n % 2 == 1).collect::<Vec<_>>()
    );

    let count = |path: &'static str| {
        let app = &app;
        async move { app.get_json(path).await["events"].as_array().unwrap().len() }
    };
    assert_eq!(count("/v1/events?eventType=t3").await, 5);
    assert_eq!(
        count("/v1/events?sessionId=s&userId=u0&limit=100").await,
        13
    );
    let range = "/v1/events?from=2026-01-01T00:00:05Z&to=2026-01-01T00:00:10Z";
    assert_eq!(count(range).await, 5, "from is inclusive, to is not");
    for bad in [
        "limit=0",
        "limit=5000",
        "cursor=x",
        "from=monday",
        "user=u",
        "limit=x",
    ] {
        let response = app.get(&format!("/v1/events?{bad}")).await;
        assert_eq!(response.status(), 400, "{bad}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    assert_eq!(app.get("/v1/events/none").await.status(), 404);
    for bad in [
        "/v1/events/none?wait=soon",
        "/v1/events/none?wait=61s",
        "/v1/events?cursor=-1",
    ] {
        assert_eq!(app.get(bad).await.status(), 400, "{bad}");
    }
    for (path, bad) in [
        ("purge", json!({"limit": 0, "all": true})),
        ("purge", json!({"limit": 10_001, "all": true})),
        (
            "purge",
            json!([null, null, null, null, null, null, null, true, false]),
        ),
        ("replay", json!({"limit": 0})),
        ("replay", json!([])),
    ] {
        let answer = app.post(&format!("/v1/dead-letters/{path}"), &bad).await;
        assert_eq!(answer.status(), 400, "{path} {bad}");
    }
}

#[tokio::test]
async fn metrics_pass_promtool_and_balance_under_load() {
    let (app, dir) = embedded().await;
    let load = async {
        for n in 0..200 {
            let event = json!({"userId": "u", "eventType": format!("t{n}")});
            assert_eq!(app.post("/v1/events", &event).await.status(), 202);
        }
    };
    let scrapes = async {
        for _ in 0..50 {
            let metrics = app.metrics().await;
            for path in ["ingest", "consume"] {
                let entry = |outcome| {
                    metrics.sum(
                        "eclusa_accounted_events_total",
                        &[("path", path), ("outcome", outcome)],
                    )
                };
                let all = metrics.sum("eclusa_accounted_events_total", &[("path", path)]);
                let settled = all - entry("taken");
                let in_flight = metrics.sum("eclusa_events_in_flight", &[("path", path)]);
                assert_eq!(entry("taken"), settled + in_flight, "{path}");
            }
        }
    };
    futures::join!(load, scrapes);
    let text = app.get("/metrics").await.text().await.unwrap();
    let series = text
        .lines()
        .filter(|l| l.starts_with("eclusa_events_stored_by_type_total"));
    assert_eq!(series.count(), 51, "50 types and the rest");
    let file = dir.path().join("metrics.txt");
    std::fs::write(&file, &text).unwrap();
    let promtool = program("promtool", &["--version"]);
    if precondition("promtool", promtool).is_some() {
        let output = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let (mut app, _dir) = embedded().await;
    let mut ids = Vec::new();
    for n in 0..50 {
        let event = json!({"userId": "u", "eventType": "t", "eventData": {"n": n}});
        ids.push(body(app.post("/v1/events", &event).await).await["id"].clone());
    }
    app.kill9();
    app.wait_exit(SOON).await;
    app.start_again().await;
    app.wait_ready().await;
    for id in ids {
        let path = format!("/v1/events/{}", id.as_str().unwrap());
        eventually(SOON, "the event is there", async || {
            (app.get(&path).await.status() == 200).then_some(())
        })
        .await;
    }
}

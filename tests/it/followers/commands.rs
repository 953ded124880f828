//! Followers of a running process, by HTTP and by the command line.

use crate::harness::{App, Postgres, connect, eclusa, eventually, temp_dir, told};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn post(app: &App, action: &str, body: Value) -> (u16, Value) {
    let response = app.post(&format!("/v1/followers/{action}"), &body).await;
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_follower_of_a_stream_is_not_rebuilt() {
    let folder = temp_dir("followers-");
    let app = App::builder().embedded(folder.path()).start().await;
    app.wait_ready().await;
    let shown = app.get_json("/v1/followers/streams.pix").await;
    assert_eq!(shown["kind"], "permanent");
    for body in [json!({}), json!({"acceptTruncated": true})] {
        let (status, problem) = post(&app, "streams.pix/rebuild", body).await;
        assert_eq!(status, 409, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("cannot be undone"), "{detail}");
    }
    let shown = app.get_json("/v1/followers/streams.pix").await;
    assert_eq!(
        (&shown["state"], &shown["rebuildRequested"]),
        (&json!("running"), &json!(false))
    );
}

#[tokio::test]
async fn the_follower_of_a_stream_is_not_removed() {
    let folder = temp_dir("followers-");
    let mut app = App::builder().embedded(folder.path()).start().await;
    app.wait_ready().await;
    send(&app, 3, "a").await;
    let position = |shown: &Value| {
        let position = shown["position"].as_str().unwrap();
        let (_, number) = position.split_once('-').unwrap();
        number.parse::<u64>().unwrap()
    };
    let before = eventually(SOON, "it has read on", async || {
        let shown = app.get_json("/v1/followers/streams.pix").await;
        Some(position(&shown)).filter(|position| *position > 0)
    })
    .await;
    app.sigterm();
    app.wait_exit(SOON).await;
    // No process runs it any more.
    let set = format!("data_dir={}", folder.path().display());
    let output = eclusa(&["followers", "remove", "streams.pix", "--set", &set])
        .output()
        .unwrap();
    let said = told(&output);
    assert!(
        !output.status.success() && said.contains("apply it once more"),
        "{said}"
    );
    app.start_again().await;
    app.wait_ready().await;
    let shown = app.get_json("/v1/followers/streams.pix").await;
    assert!(position(&shown) >= before, "{shown}");
}

async fn follower(app: &App) -> Value {
    app.get_json("/v1/followers/by-type").await
}

async fn send(app: &App, count: usize, event_type: &str) {
    let events: Value = (0..count)
        .map(|n| json!({"userId": "u", "eventType": event_type, "eventData": {"n": n}}))
        .collect();
    let status = app.post("/v1/events", &events).await.status().as_u16();
    assert!(status == 200 || status == 202, "{status}");
}

async fn caught_up(app: &App) {
    eventually(SOON, "the follower has caught up", async || {
        let shown = follower(app).await;
        (shown["behind"]["events"] == 0).then_some(())
    })
    .await;
}

async fn follows_and_obeys(app: &App) {
    app.wait_ready().await;
    send(app, 30, "a").await;
    caught_up(app).await;
    let shown = follower(app).await;
    assert_eq!(
        (&shown["state"], &shown["kind"]),
        (&json!("running"), &json!("transactional"))
    );
    assert_eq!(shown["types"], json!(["*"]));
    assert!(shown["runBy"].is_string(), "{shown}");
    let applied = app
        .metric_with("eclusa_follower_applied_total", &[("follower", "by-type")])
        .await;
    assert_eq!(applied, 30.0);

    let (status, paused) = post(app, "by-type/pause", json!({})).await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")));
    send(app, 20, "a").await;
    let (status, problem) = post(app, "by-type/pause", json!({})).await;
    assert_eq!(status, 409, "{problem}");
    eventually(SOON, "its state is shown", async || {
        let labels = [("follower", "by-type"), ("state", "paused")];
        (app.metric_with("eclusa_follower_state", &labels).await == 1.0).then_some(())
    })
    .await;
    let behind = follower(app).await["behind"]["events"].as_u64();
    assert_eq!(behind, Some(20), "it stands");
    eventually(SOON, "the lag is shown", async || {
        let labels = [("follower", "by-type")];
        (app.metric_with("eclusa_follower_lag_events", &labels).await == 20.0).then_some(())
    })
    .await;
    let end = app.get_json("/v1/followers").await["log"]["end"].clone();
    let (status, skipped) = post(app, "by-type/skip", json!({"to": end})).await;
    assert_eq!((status, &skipped["position"]), (200, &end));
    assert_eq!(post(app, "by-type/resume", json!({})).await.0, 200);
    send(app, 5, "a").await;
    caught_up(app).await;

    let (status, problem) = post(app, "by-type/skip", json!({"to": "7-1"})).await;
    assert_eq!(status, 410);
    assert!(
        problem["detail"].as_str().unwrap().contains("generation 7"),
        "{problem}"
    );
    assert_eq!(post(app, "by-type/skip", json!({"to": "1"})).await.0, 400);
    assert_eq!(post(app, "by-type/skip", json!({"to": "1-0"})).await.0, 409);
    assert_eq!(post(app, "absent/pause", json!({})).await.0, 404);
    let (status, problem) = post(app, "by-type/remove", json!({})).await;
    assert_eq!(status, 409);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("runs follower"),
        "{problem}"
    );
}

#[tokio::test]
async fn followers_of_a_process_obey() {
    let database = Postgres::shared().await.database().await;
    let app = App::builder().followers().postgres(&database).start().await;
    follows_and_obeys(&app).await;
    let client = connect(&database).await;
    let counted = async || {
        let sql = "SELECT coalesce(sum(events), 0)::bigint FROM example_counts_by_type";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(counted().await, 35, "what was skipped is not counted");
    let (status, _) = post(&app, "by-type/rebuild", json!({})).await;
    assert_eq!(status, 200);
    eventually(SOON, "it is rebuilt", async || {
        (counted().await == 55).then_some(())
    })
    .await;

    let url = |app: &App| app.url().to_owned();
    let run = |arguments: &[&str]| {
        let set = format!("store.url={database}");
        let output = eclusa(arguments).args(["--set", &set]).output().unwrap();
        (output.status.success(), told(&output))
    };
    let (_, listed) = run(&["followers", "list"]);
    assert!(
        listed.contains("by-type") && listed.contains("by-user"),
        "{listed}"
    );
    assert!(
        listed.contains("running") && listed.contains("0 behind"),
        "{listed}"
    );
    let (done, said) = run(&["followers", "pause", "by-user", "--server", &url(&app)]);
    assert!(done, "{said}");
    assert_eq!(
        app.get_json("/v1/followers/by-user").await["state"],
        "paused"
    );
    // In the store: another process is told.
    let (done, said) = run(&["followers", "resume", "by-user"]);
    assert!(done, "{said}");
    send(&app, 3, "b").await;
    caught_up(&app).await;
    let (done, said) = run(&["followers", "show", "by-user"]);
    assert!(done && said.contains("\"state\": \"running\""), "{said}");
    let (done, said) = run(&["followers", "pause", "absent"]);
    assert!(
        !done && said.contains("there is no follower absent"),
        "{said}"
    );
    let (done, said) = run(&["followers", "skip", "by-user", "--to", "99"]);
    assert!(!done && said.contains("is no position"), "{said}");
    let (done, said) = run(&["followers", "new-generation"]);
    assert!(done && said.contains("generation 2"), "{said}");
}

#[tokio::test]
async fn followers_of_an_embedded_process_obey() {
    let folder = temp_dir("followers-");
    let app = App::builder()
        .followers()
        .embedded(folder.path())
        .start()
        .await;
    follows_and_obeys(&app).await;
    let set = format!("data_dir={}", folder.path().display());
    let output = eclusa(&["followers", "rebuild", "by-type", "--set", &set])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    caught_up(&app).await;
}

//! When a batch goes out, and that its bounds change while it is open.

use crate::harness::{App, Postgres, RabbitMq, eventually, temp_dir};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Full mode: there a batch waits for size and time.
async fn full(max_wait: &str) -> App {
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", max_wait)
        .start()
        .await;
    app.wait_ready().await;
    app
}

fn events(count: usize) -> Value {
    (0..count)
        .map(|n| json!({"userId": "u", "eventType": "t", "eventData": {"n": n}}))
        .collect()
}

async fn flushed(app: &App, trigger: &str) -> f64 {
    app.metric_with("eclusa_batches_flushed_total", &[("trigger", trigger)])
        .await
}

async fn stored(app: &App, count: f64) {
    eventually(SOON, "the events are stored", async || {
        (app.metric("eclusa_events_stored_total").await >= count).then_some(())
    })
    .await;
    assert_eq!(app.metric("eclusa_events_stored_total").await, count);
}

#[tokio::test]
async fn three_events_and_the_wait_make_one_batch_by_time() {
    let app = full("2s").await;
    let began = Instant::now();
    for event in events(3).as_array().unwrap() {
        assert_eq!(app.post("/v1/events", event).await.status(), 202);
    }
    stored(&app, 3.0).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(flushed(&app, "time").await, 1.0);
    assert_eq!(app.metric("eclusa_batches_flushed_total").await, 1.0);
}

#[tokio::test]
async fn a_hundred_at_once_make_one_batch_by_size_and_a_new_size_needs_no_restart() {
    let mut app = full("10m").await;
    assert_eq!(app.post("/v1/events", &events(100)).await.status(), 202);
    stored(&app, 100.0).await;
    assert_eq!(flushed(&app, "size").await, 1.0);

    // Seven wait in the open batch while its bounds change; they must not get lost over it.
    assert_eq!(app.post("/v1/events", &events(7)).await.status(), 202);
    eventually(SOON, "they are consumed", async || {
        let consumed = [("ledger", "consume"), ("outcome", "taken")];
        let taken = app
            .metric_with("eclusa_ledger_events_total", &consumed)
            .await;
        (taken == 107.0).then_some(())
    })
    .await;
    app.rewrite_config("batch.max_events", 10);
    app.wait_for_log(SOON, "settings in force").await;
    assert_eq!(app.metric("eclusa_events_stored_total").await, 100.0);
    assert_eq!(app.post("/v1/events", &events(3)).await.status(), 202);
    stored(&app, 110.0).await;
    assert_eq!(flushed(&app, "size").await, 2.0);
    assert_eq!(app.metric("eclusa_batches_flushed_total").await, 2.0);

    // A shorter wait reaches the batch that is open already.
    assert_eq!(app.post("/v1/events", &events(1)).await.status(), 202);
    app.rewrite_config("batch.max_wait", "100ms");
    stored(&app, 111.0).await;
    assert_eq!(flushed(&app, "time").await, 1.0);

    // Nonsense changes nothing and is said.
    app.rewrite_config("batch.max_events", 0);
    app.sighup();
    let line = app.wait_for_log(SOON, "not in order").await;
    assert!(line.contains("batch.max_events"), "{line}");
    assert_eq!(app.post("/v1/events", &events(10)).await.status(), 202);
    stored(&app, 121.0).await;
}

#[tokio::test]
async fn with_a_linger_a_caller_waits_for_others() {
    let dir = temp_dir("linger-");
    let linger = Duration::from_millis(20);
    let app = App::builder()
        .embedded(dir.path())
        .set("batch.linger", "20ms")
        .start()
        .await;
    app.wait_ready().await;
    let began = Instant::now();
    assert_eq!(app.post("/v1/events", &events(1)[0]).await.status(), 202);
    assert!(began.elapsed() >= linger, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_reader_who_waits_gets_the_event_before_the_batch_is_due() {
    let app = full("10m").await;
    let answer: Value = serde_json::from_str(
        &app.post("/v1/events", &events(1)[0])
            .await
            .text()
            .await
            .unwrap(),
    )
    .unwrap();
    assert_eq!(answer["status"], "queued");
    let path = format!("/v1/events/{}", answer["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.status(), 404);
    let event = app.get_json(&format!("{path}?wait=20s")).await;
    assert_eq!(event["id"], answer["id"]);
    assert_eq!(flushed(&app, "idle").await, 1.0);

    let unknown = "/v1/events/01890000-0000-7000-8000-000000000000?wait=300ms";
    assert_eq!(app.get(unknown).await.status(), 404);
}

#[tokio::test]
async fn sigterm_lets_the_open_batch_go() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let mut app = App::builder()
        .postgres(&database)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", "10m")
        .start()
        .await;
    app.wait_ready().await;
    assert_eq!(app.post("/v1/events", &events(5)).await.status(), 202);
    eventually(SOON, "they are consumed", async || {
        let consumed = [("ledger", "consume"), ("outcome", "taken")];
        let taken = app
            .metric_with("eclusa_ledger_events_total", &consumed)
            .await;
        (taken == 5.0).then_some(())
    })
    .await;
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
    let rows = postgres
        .query(&database, "SELECT count(*) FROM user_interactions", &[])
        .await;
    assert_eq!(rows[0].get::<_, i64>(0), 5);
    assert!(
        app.logs()
            .iter()
            .any(|line| line.contains("\"trigger\":\"drain\""))
    );
}

//! When a batch goes out, and that its bounds change while it is open.

use crate::harness::{App, Postgres, RabbitMq, confirming, connect, eventually, temp_dir};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
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
        let consumed = [("path", "consume"), ("outcome", "taken")];
        let taken = app
            .metric_with("eclusa_accounted_events_total", &consumed)
            .await;
        (taken == 107.0).then_some(())
    })
    .await;
    app.rewrite_config("batch.max_events", 10);
    app.wait_for_log(SOON, "settings reloaded").await;
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
    let line = app.wait_for_log(SOON, "new settings are invalid").await;
    assert!(line.contains("batch.max_events"), "{line}");
    assert_eq!(app.post("/v1/events", &events(10)).await.status(), 202);
    stored(&app, 121.0).await;
}

/// Single-event messages of another publisher, without ids.
async fn publish_all(vhost: &str, count: usize, event_type: impl Fn(usize) -> &'static str) {
    let channel = confirming(vhost).await;
    let publishing = (0..count).map(async |n| {
        let body = json!({"userId": "u", "eventType": event_type(n), "eventData": {"n": n}});
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = body.to_string();
        channel
            .basic_publish(
                "".into(),
                "eclusa.events".into(),
                options,
                body.as_bytes(),
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap()
            .is_ack()
    });
    let acknowledged = futures::future::join_all(publishing).await;
    assert!(acknowledged.into_iter().all(|acknowledged| acknowledged));
}

async fn consumed(app: &App, count: f64) {
    eventually(SOON, "they are consumed", async || {
        let consumed = [("path", "consume"), ("outcome", "taken")];
        let taken = app.metric_with("eclusa_accounted_events_total", &consumed);
        (taken.await >= count).then_some(())
    })
    .await;
}

/// A prefetch window that no widening reaches by doubling still holds a whole batch.
#[tokio::test]
async fn a_batch_as_large_as_the_prefetch_fills() {
    let vhost = RabbitMq::shared().await.vhost().await;
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "10m")
        .set("batch.max_events", 500)
        .set("broker.prefetch", 500)
        .start()
        .await;
    app.wait_ready().await;
    publish_all(&vhost, 2_000, |_| "t").await;
    // What is left at the end may be less than a window, and waits.
    eventually(SOON, "batches leave", async || {
        (app.metric("eclusa_events_stored_total").await >= 1_500.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_due_when_the_prefetch_window_is_spent() {
    let vhost = RabbitMq::shared().await.vhost().await;
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "10m")
        .set("batch.max_events", 100)
        .set("broker.prefetch", 60)
        .start()
        .await;
    app.wait_ready().await;
    publish_all(&vhost, 600, |_| "t").await;
    eventually(SOON, "batches leave", async || {
        (app.metric("eclusa_events_stored_total").await > 540.0).then_some(())
    })
    .await;
    assert!(flushed(&app, "window").await > 0.0);
}

#[tokio::test]
async fn a_writer_that_becomes_free_takes_what_has_gathered() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let vhost = RabbitMq::shared().await.vhost().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "10m")
        .set("batch.writers", 1)
        .start()
        .await;
    app.wait_ready().await;
    let mut client = connect(&database).await;
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE user_interactions")
        .await
        .unwrap();
    // The first batch waits for the lock, and the others gather behind it.
    publish_all(&vhost, 2_000, |_| "t").await;
    consumed(&app, 2_000.0).await;
    lock.rollback().await.unwrap();
    stored(&app, 2_000.0).await;
    let batches = app.metric("eclusa_batches_flushed_total").await;
    assert!(batches <= 3.0, "{batches} batches");
}

/// With 5 % of the rows bad, batches soon have 100 rows at most, and every caller has its answer
/// within `ingest.timeout`.
#[tokio::test]
async fn bad_rows_make_batches_smaller_so_that_their_neighbours_do_not_wait_long() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let app = App::builder()
        .postgres(&database)
        .set("ingest.timeout", "60s")
        .start()
        .await;
    app.wait_ready().await;
    postgres
        .execute(
            &database,
            "ALTER TABLE user_interactions ADD CONSTRAINT no_bad CHECK (event_type <> 'bad')",
        )
        .await;
    let items: Value = (0..100)
        .map(|n| json!({"userId": "u", "eventType": if n % 20 == 7 { "bad" } else { "good" }}))
        .collect();
    let post_all = async |requests: usize| {
        let requests = (0..requests).map(|_| app.post("/v1/events", &items));
        for response in futures::future::join_all(requests).await {
            assert_eq!(response.status(), 202);
        }
    };
    let mut requests = 0;
    eventually(SOON * 6, "the limit of rows is at its lowest", async || {
        post_all(20).await;
        requests += 20;
        let lowest =
            |line: &String| line.contains("\"limit\":100,") || line.contains("\"limit\":100}");
        app.logs().iter().any(lowest).then_some(())
    })
    .await;
    // From then on no batch has more rows.
    let small = async || {
        let small = [("le", "100")];
        let small = app.metric_with("eclusa_batch_events_bucket", &small).await;
        (small, app.metric("eclusa_batch_events_count").await)
    };
    let before = small().await;
    post_all(10).await;
    let after = small().await;
    assert_eq!(after.0 - before.0, after.1 - before.1);
    assert!(after.1 - before.1 >= 10.0);
    stored(&app, (requests + 10) as f64 * 95.0).await;
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
        let consumed = [("path", "consume"), ("outcome", "taken")];
        let taken = app
            .metric_with("eclusa_accounted_events_total", &consumed)
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

//! A panic in each actor in turn, while events flow: the actor restarts, and every event that was
//! accepted is stored once.

use crate::harness::{App, Postgres, RabbitMq, eventually, temp_dir};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ROUND: usize = 60;

/// Arms a failpoint of the running process.
async fn arm(app: &App, point: &str, action: &'static str) {
    let response = reqwest::Client::new()
        .put(format!("{}/failpoints/{point}", app.url()))
        .body(action)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 204);
}

async fn restarts(app: &App, actor: &str) -> f64 {
    let labels = [("actor", actor), ("cause", "panic")];
    app.metric_with("eclusa_actor_restarts_total", &labels)
        .await
}

/// Posts events one after another until the actor has restarted, but at least a round of them; each
/// is repeated until it is taken. Gives the ids.
async fn flow(app: &App, actor: &str, posted: &mut usize) {
    let before = restarts(app, actor).await;
    let mut here = 0;
    while here < ROUND || restarts(app, actor).await == before {
        assert!(here < 5_000, "{actor} does not restart");
        let event = event(*posted);
        eventually(SOON, "the event is taken", async || {
            let response = app
                .try_post("/v1/events", "application/json", event.to_string())
                .await
                .ok()?;
            (response.status() == 202).then_some(())
        })
        .await;
        *posted += 1;
        here += 1;
    }
    assert_eq!(restarts(app, actor).await, before + 1.0, "{actor}");
}

fn event(n: usize) -> Value {
    json!({"id": format!("e{n}"), "userId": "u", "eventType": "t", "eventData": {"n": n}})
}

#[tokio::test]
async fn every_actor_of_the_full_mode_survives_a_panic() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let rabbitmq = RabbitMq::shared().await;
    let vhost = rabbitmq.vhost().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&vhost)
        .set("batch.max_events", 5)
        .set("broker.prefetch", 50)
        .set("batch.max_wait", "200ms")
        .set("broker.reconnect_max", "1s")
        .start()
        .await;
    app.wait_ready().await;
    let mut posted = 0;
    for (point, actor) in [
        ("http_ingest.ingest", "http_ingest"),
        ("http_ingest.flush", "http_ingest"),
        ("http_ingest.publish", "http_ingest"),
        ("http_ingest.after_confirm", "http_ingest"),
        ("amqp_consumer.push", "amqp_consumer"),
        ("amqp_consumer.acknowledge", "amqp_consumer"),
        ("batch_accumulator.push", "batch_accumulator"),
        ("batch_accumulator.dispatch", "batch_accumulator"),
        ("db_writer.write_batch", "db_writer"),
        ("db_writer.after_commit", "db_writer"),
    ] {
        arm(&app, point, "2:1:panic").await;
        flow(&app, actor, &mut posted).await;
    }
    // The connection's own actor panics when it has to connect anew.
    arm(&app, "broker_connection.connect", "0:1:panic").await;
    let name = vhost.rsplit('/').next().unwrap();
    rabbitmq
        .ctl(&["close_all_connections", "-p", name, "test"])
        .await;
    flow(&app, "broker_connection", &mut posted).await;

    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        postgres.query(&database, sql, &[]).await[0].get(0)
    };
    eventually(SOON, "every event is stored", async || {
        (count().await >= posted as i64).then_some(())
    })
    .await;
    assert_eq!(count().await, posted as i64);
    eventually(SOON, "the books are closed", async || {
        (app.metric("eclusa_events_in_flight").await == 0.0).then_some(())
    })
    .await;
    assert!(app.is_ready().await);
}

/// Makes every event of the type `bad` a row that PostgreSQL refuses.
const FORBID: &str =
    "ALTER TABLE user_interactions ADD CONSTRAINT no_bad CHECK (event_type <> 'bad') NOT VALID";

fn bad() -> Value {
    json!({"id": "bad-1", "userId": "u", "eventType": "bad"})
}

/// The event is dead-lettered once, although the supervisor panicked over it.
async fn one_dead_letter(app: &App, database: &str) {
    let postgres = Postgres::shared().await;
    eventually(
        SOON,
        "it is dead-lettered and the actor has restarted",
        async || {
            let rows = postgres
                .query(database, "SELECT count(*) FROM dead_letters", &[])
                .await;
            let letters: i64 = rows[0].get(0);
            (letters == 1 && restarts(app, "retry_supervisor").await == 1.0).then_some(())
        },
    )
    .await;
    eventually(SOON, "nothing is in flight", async || {
        (app.metric("eclusa_events_in_flight").await == 0.0).then_some(())
    })
    .await;
    assert!(app.is_ready().await);
}

#[tokio::test]
async fn the_retry_supervisor_survives_a_panic_and_its_message_comes_back() {
    let postgres = Postgres::shared().await;
    let rabbitmq = RabbitMq::shared().await;
    for point in [
        "retry_supervisor.unreadable",
        "retry_supervisor.failed",
        "retry_supervisor.after_publish",
    ] {
        let (database, vhost) = (postgres.database().await, rabbitmq.vhost().await);
        let app = App::builder()
            .postgres(&database)
            .rabbitmq(&vhost)
            .set("batch.max_wait", "200ms")
            .start()
            .await;
        app.wait_ready().await;
        postgres.execute(&database, FORBID).await;
        arm(&app, point, "0:1:panic").await;
        if point == "retry_supervisor.unreadable" {
            crate::amqp::publish(&vhost, "eclusa.events", "", b"no event", None).await;
        } else {
            assert_eq!(app.post("/v1/events", &bad()).await.status(), 202);
        }
        one_dead_letter(&app, &database).await;
    }
}

/// Without a broker the caller is told to repeat the event, and the dead letter is the same one.
#[tokio::test]
async fn the_retry_supervisor_survives_a_panic_behind_the_commit_of_a_dead_letter() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let app = App::builder().postgres(&database).start().await;
    app.wait_ready().await;
    postgres.execute(&database, FORBID).await;
    arm(&app, "retry_supervisor.after_insert", "0:1:panic").await;
    assert_eq!(app.post("/v1/events", &bad()).await.status(), 503);
    assert_eq!(app.post("/v1/events", &bad()).await.status(), 202);
    one_dead_letter(&app, &database).await;
}

/// Batches are not full, so that they are due by time.
#[tokio::test]
async fn the_accumulator_survives_a_panic_of_its_timer() {
    let database = Postgres::shared().await.database().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", "50ms")
        .start()
        .await;
    app.wait_ready().await;
    let mut posted = 0;
    arm(&app, "batch_accumulator.timer", "2:1:panic").await;
    flow(&app, "batch_accumulator", &mut posted).await;
    let sql = "SELECT count(*), count(DISTINCT event_id) FROM user_interactions";
    eventually(SOON, "every event is stored once", async || {
        let rows = Postgres::shared().await.query(&database, sql, &[]).await;
        let stored: (i64, i64) = (rows[0].get(0), rows[0].get(1));
        (stored == (posted as i64, posted as i64)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_actor_beyond_repair_ends_the_process_with_a_clear_last_line() {
    let dir = temp_dir("panics-");
    let mut app = App::builder()
        .embedded(dir.path())
        .env("ECLUSA_FAILPOINTS", "batch_accumulator.push=panic")
        .start()
        .await;
    eventually(SOON, "it gives up", async || {
        // Refused each time; sent only so that the actor has something to panic over.
        let body = event(0).to_string();
        let sent = app.try_post("/v1/events", "application/json", body).await;
        sent.is_err().then_some(())
    })
    .await;
    let status = app.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(1));
    let line = "eclusa: actor batch_accumulator was restarted";
    app.wait_for_log(SOON, line).await;
}

#[tokio::test]
async fn an_actor_that_hangs_is_found_and_named() {
    let dir = temp_dir("panics-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    arm(&app, "batch_accumulator.push", "0:1:stall").await;
    let url = format!("{}/v1/events", app.url());
    let hanging = tokio::spawn(async move {
        let client = reqwest::Client::new();
        for n in 0..2 {
            let request = client.post(&url).header("content-type", "application/json");
            // Never answered: what takes its events hangs.
            let sent = request.body(event(n).to_string()).send();
            let _ = tokio::time::timeout(Duration::from_millis(200), sent).await;
        }
    });
    eventually(SOON, "readiness names the actor", async || {
        let text = app.get("/health/ready").await.text().await.unwrap();
        text.contains("batch_accumulator/0").then_some(())
    })
    .await;
    assert!(!app.is_ready().await);
    hanging.await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_handler_is_one_requests_misfortune() {
    let dir = temp_dir("panics-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    arm(&app, "http.post_events", "0:1:panic").await;
    let response = app.post("/v1/events", &event(0)).await;
    assert_eq!(response.status(), 500);
    let text = response.text().await.unwrap();
    assert!(text.contains("a defect in Eclusa"), "{text}");
    assert_eq!(app.post("/v1/events", &event(0)).await.status(), 202);
}

#[tokio::test]
async fn every_actor_of_the_embedded_mode_survives_a_panic() {
    let dir = temp_dir("panics-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    let mut posted = 0;
    for (point, actor) in [
        ("http_ingest.ingest", "http_ingest"),
        ("http_ingest.flush", "http_ingest"),
        ("batch_accumulator.push", "batch_accumulator"),
        ("batch_accumulator.dispatch", "batch_accumulator"),
        ("db_writer.write_batch", "db_writer"),
        ("db_writer.after_commit", "db_writer"),
    ] {
        arm(&app, point, "2:1:panic").await;
        flow(&app, actor, &mut posted).await;
    }
    let mut listed = 0;
    let mut path = "/v1/events?limit=1000".to_owned();
    loop {
        let page = app.get_json(&path).await;
        listed += page["events"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(cursor) => path = format!("/v1/events?limit=1000&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(listed, posted);
}

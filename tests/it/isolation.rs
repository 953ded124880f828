//! One bad event never harms its neighbours: not a row the store refuses, not one whose writing
//! crashes or hangs every time, not one that fails for a while.

use crate::harness::{App, Postgres, RabbitMq, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

struct Bench {
    app: App,
    database: String,
}

async fn bench(full: bool, set: &[(&str, Value)]) -> Bench {
    let database = Postgres::shared().await.database().await;
    let mut builder = App::builder()
        .postgres(&database)
        .set("batch.max_wait", "200ms")
        .set("retry.base_delay", "100ms")
        .set("retry.max_attempts", 3);
    if full {
        builder = builder.rabbitmq(&RabbitMq::shared().await.vhost().await);
    }
    for (key, value) in set {
        builder = builder.set(key, value.clone());
    }
    let app = builder.start().await;
    app.wait_ready().await;
    Bench { app, database }
}

impl Bench {
    async fn sql(&self, sql: &str) {
        Postgres::shared().await.execute(&self.database, sql).await;
    }

    async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        let rows = Postgres::shared()
            .await
            .query(&self.database, sql, &[])
            .await;
        rows[0].get(0)
    }

    async fn arm(&self, point: &str, action: &'static str) {
        let url = format!("{}/failpoints/{point}", self.app.url());
        let response = reqwest::Client::new().put(url).body(action).send().await;
        assert_eq!(response.unwrap().status(), 204);
    }

    async fn dead(&self, cause: &str) -> f64 {
        let labels = [("cause", cause)];
        self.app
            .metric_with("eclusa_events_dead_lettered_total", &labels)
            .await
    }

    async fn wait_for(&self, rows: i64, cause: &str, dead: f64) {
        eventually(SOON, "rows and dead letters are complete", async || {
            (self.rows().await >= rows && self.dead(cause).await >= dead).then_some(())
        })
        .await;
        assert_eq!((self.rows().await, self.dead(cause).await), (rows, dead));
        eventually(SOON, "the books are closed", async || {
            (self.app.metric("eclusa_events_in_flight").await == 0.0).then_some(())
        })
        .await;
    }

    /// No actor was restarted: one event's failure is not a defect of its actor.
    async fn no_restarts(&self) {
        assert_eq!(self.app.metric("eclusa_actor_restarts_total").await, 0.0);
        assert!(self.app.is_ready().await);
    }
}

/// Every tenth of `count` events is of the type `bad`.
fn mixed(count: usize) -> Value {
    (0..count)
        .map(|n| {
            let kind = if n % 10 == 3 { "bad" } else { "good" };
            json!({"userId": "u", "eventType": kind, "eventData": {"n": n}})
        })
        .collect()
}

#[tokio::test]
async fn rows_the_store_refuses_stand_alone() {
    let bench = bench(true, &[]).await;
    bench
        .sql("ALTER TABLE user_interactions ADD CONSTRAINT no_bad CHECK (event_type <> 'bad')")
        .await;
    assert_eq!(
        bench.app.post("/v1/events", &mixed(100)).await.status(),
        202
    );
    bench.wait_for(90, "poison", 10.0).await;
    // k bad rows of n cost on the order of k log n writes, not n.
    let writes = bench.app.metric("eclusa_store_write_seconds_count").await;
    assert!(writes < 10.0 * 2.0 * 7.0 + 20.0, "{writes} writes");
    bench.no_restarts().await;
}

/// Not null is violated by some rows only, in a column and in a table of the operator's.
#[tokio::test]
async fn rows_that_lack_a_value_which_others_have_stand_alone() {
    for change in [
        "ALTER TABLE user_interactions ADD good text NOT NULL
             GENERATED ALWAYS AS (nullif(event_type, 'bad')) STORED",
        "CREATE TABLE user_interactions_audit (good text NOT NULL);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO user_interactions_audit VALUES (nullif(NEW.event_type, 'bad'));
             RETURN NEW;
         END $$;
         CREATE TRIGGER audit BEFORE INSERT ON user_interactions
             FOR EACH ROW EXECUTE FUNCTION audit()",
    ] {
        for full in [true, false] {
            let bench = bench(full, &[]).await;
            bench.sql(change).await;
            assert_eq!(bench.app.post("/v1/events", &mixed(20)).await.status(), 202);
            bench.wait_for(18, "poison", 2.0).await;
            bench.no_restarts().await;
        }
    }
}

#[tokio::test]
async fn an_event_whose_writing_panics_every_time_is_put_aside() {
    let bench = bench(true, &[]).await;
    bench.arm("db_writer.event/bad", "panic").await;
    assert_eq!(bench.app.post("/v1/events", &mixed(30)).await.status(), 202);
    bench.wait_for(27, "panic", 3.0).await;
    assert_eq!(bench.app.metric("eclusa_events_retried_total").await, 6.0);
    bench.no_restarts().await;
}

#[tokio::test]
async fn an_event_whose_writing_hangs_every_time_is_put_aside() {
    let limits = [
        ("store.statement_timeout", json!("100ms")),
        ("store.acquire_timeout", json!("100ms")),
        ("store.write_margin", json!("100ms")),
    ];
    let bench = bench(true, &limits).await;
    bench.arm("db_writer.event/bad", "stall").await;
    assert_eq!(bench.app.post("/v1/events", &mixed(10)).await.status(), 202);
    bench.wait_for(9, "timeout", 1.0).await;
    bench.no_restarts().await;
}

#[tokio::test]
async fn what_fails_for_a_while_is_retried_and_then_stored() {
    let bench = bench(true, &[("retry.max_attempts", json!(10))]).await;
    // An error of a class that nobody knows is taken to pass.
    bench
        .sql(
            "CREATE FUNCTION moody() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 -- The write probe has no user, so it is refused as well.
                 IF NEW.event_type = 'bad' OR NEW.user_id IS NULL THEN
                     RAISE EXCEPTION 'not now' USING ERRCODE = 'XY123';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER moody BEFORE INSERT ON user_interactions
                 FOR EACH ROW EXECUTE FUNCTION moody()",
        )
        .await;
    assert_eq!(bench.app.post("/v1/events", &mixed(20)).await.status(), 202);
    eventually(
        SOON,
        "the others are stored and the bad are on their rounds",
        async || {
            let retried = bench.app.metric("eclusa_events_retried_total").await;
            (bench.rows().await == 18 && retried >= 2.0).then_some(())
        },
    )
    .await;
    bench.sql("DROP TRIGGER moody ON user_interactions").await;
    bench.wait_for(20, "retries_exhausted", 0.0).await;
}

#[tokio::test]
async fn what_fails_too_often_is_dead_lettered() {
    let bench = bench(true, &[]).await;
    bench
        .sql(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'never' USING ERRCODE = 'XY123'; END $$;
             CREATE TRIGGER no BEFORE INSERT ON user_interactions
                 FOR EACH ROW WHEN (NEW.event_type = 'bad') EXECUTE FUNCTION no()",
        )
        .await;
    assert_eq!(bench.app.post("/v1/events", &mixed(10)).await.status(), 202);
    bench.wait_for(9, "retries_exhausted", 1.0).await;
    assert_eq!(bench.app.metric("eclusa_events_retried_total").await, 2.0);
}

#[tokio::test]
async fn a_dropped_table_pauses_the_work_and_nothing_is_dead_lettered() {
    let bench = bench(true, &[]).await;
    bench
        .sql("ALTER TABLE user_interactions RENAME TO away")
        .await;
    assert_eq!(bench.app.post("/v1/events", &mixed(50)).await.status(), 202);
    bench.app.wait_for_log(SOON, "\"kind\":\"operator\"").await;
    eventually(SOON, "the breaker is open", async || {
        let labels = [("breaker", "store")];
        let opened = bench
            .app
            .metric_with("eclusa_breaker_opened_total", &labels);
        (opened.await >= 1.0).then_some(())
    })
    .await;
    bench
        .sql("ALTER TABLE away RENAME TO user_interactions")
        .await;
    bench.wait_for(50, "poison", 0.0).await;
    assert_eq!(
        bench.app.metric("eclusa_events_dead_lettered_total").await,
        0.0
    );
    assert_eq!(bench.app.metric("eclusa_events_retried_total").await, 0.0);
}

#[tokio::test]
async fn with_the_broker_away_events_go_straight_to_the_store() {
    let mut rabbitmq = RabbitMq::start().await;
    let database = Postgres::shared().await.database().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&rabbitmq.vhost().await)
        .set("batch.max_wait", "10m")
        .set("broker.confirm_timeout", "2s")
        .set("broker.reconnect_max", "1s")
        .start()
        .await;
    app.wait_ready().await;
    let bench = Bench { app, database };
    let event = |n: usize| json!({"id": format!("e{n}"), "userId": "u", "eventType": "t"});
    rabbitmq.kill9().await;
    for n in 0..20 {
        assert_eq!(bench.app.post("/v1/events", &event(n)).await.status(), 202);
    }
    assert_eq!(
        bench.rows().await,
        20,
        "they are rows when they are answered"
    );
    assert!(bench.app.is_ready().await, "an event can be taken");
    assert_eq!(bench.app.metric("eclusa_broker_connected").await, 0.0);

    rabbitmq.start_again().await;
    eventually(SOON, "it publishes again", async || {
        let answer = bench
            .app
            .post("/v1/events", &event(20))
            .await
            .text()
            .await
            .unwrap();
        answer.contains("queued").then_some(())
    })
    .await;

    // Under an alarm publishing hangs; it must not hang its callers.
    rabbitmq
        .ctl(&["set_vm_memory_high_watermark", "0.000001"])
        .await;
    for n in 30..40 {
        assert_eq!(bench.app.post("/v1/events", &event(n)).await.status(), 202);
    }
    rabbitmq.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    eventually(SOON, "it publishes again", async || {
        let answer = bench
            .app
            .post("/v1/events", &event(50))
            .await
            .text()
            .await
            .unwrap();
        answer.contains("queued").then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_the_store_away_direct_mode_says_when_to_come_back() {
    let mut postgres = Postgres::start().await;
    let app = App::builder()
        .postgres(&postgres.database().await)
        .set("store.acquire_timeout", "500ms")
        .start()
        .await;
    app.wait_ready().await;
    postgres.kill9();
    let event = json!({"id": "e", "userId": "u", "eventType": "t"});
    for _ in 0..5 {
        let response = app.post("/v1/events", &event).await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
    }
    assert!(!app.is_ready().await);
    let labels = [("breaker", "store")];
    assert!(app.metric_with("eclusa_breaker_state", &labels).await > 0.0);
    postgres.start_again().await;
    app.wait_ready().await;
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
}

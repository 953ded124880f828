//! What is older than `store.retention` goes, by the hand of one process, whatever becomes of it.

use crate::harness::{App, AppBuilder, Postgres, RabbitMq, eventually, temp_dir};
use crate::store_contract::retention::insert_at_once;
use chrono::{Days, Utc};
use eclusa::event::{Event, Source, frame, item};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);
const LEASE: [(&str, &str); 1] = [("lease", "retention")];

/// A UUIDv7 of so many days ago.
fn id_of(days: u64) -> Uuid {
    let millis = (Utc::now() - Days::new(days)).timestamp_millis();
    let millis = u64::try_from(millis).unwrap();
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

fn table(days: u64) -> String {
    let day = (Utc::now() - Days::new(days)).date_naive();
    format!("user_interactions_{}", day.format("%Y%m%d"))
}

async fn post(app: &App, id: Uuid) -> reqwest::Response {
    let event = json!({"id": id, "userId": "u", "eventType": "t"});
    app.post("/v1/events", &event).await
}

/// A database with events of 30 and 20 days ago, of today, and without a day of their own of which
/// `aged` were received a month ago.
struct Log {
    database: String,
    old: [Uuid; 2],
    kept: [Uuid; 2],
}

impl Log {
    async fn with(aged: usize) -> Self {
        let database = Postgres::shared().await.database().await;
        let log = Self {
            database,
            old: [id_of(30), id_of(20)],
            kept: [id_of(0), Uuid::new_v4()],
        };
        let app = log.app().start().await;
        for id in log.old {
            assert_eq!(post(&app, id).await.status(), 202);
        }
        log.sql(&format!(
            "INSERT INTO user_interactions \
                 (id, event_id, bucket, source, producer, event_type, received_at) \
             SELECT nextval('log_blocks') << 12, gen_random_uuid(), '0001-01-01', 'http', 'tests', 't', now() - interval '30 days' \
             FROM generate_series(1, {aged})"
        ))
        .await;
        for id in log.kept {
            assert_eq!(post(&app, id).await.status(), 202);
        }
        log
    }

    /// One whose lease is short, and without the follower of Pix messages: the retention would wait a round for it.
    fn app(&self) -> AppBuilder {
        App::builder()
            .postgres(&self.database)
            .set("pix.enabled", false)
            .set("store.lease_ttl", "1s")
    }

    /// One that keeps ten days.
    fn keeper(&self) -> AppBuilder {
        self.app().set("store.retention", "10d")
    }

    async fn sql(&self, sql: &str) {
        Postgres::shared().await.execute(&self.database, sql).await;
    }

    async fn ask(&self, condition: &str) -> bool {
        let sql = format!("SELECT {condition}");
        let rows = Postgres::shared().await.query(&self.database, &sql, &[]);
        rows.await[0].get(0)
    }

    async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        let rows = Postgres::shared().await.query(&self.database, sql, &[]);
        rows.await[0].get(0)
    }

    /// Only what is to be kept is there, and of the old days not even a table.
    async fn is_trimmed(&self) {
        eventually(SOON, "what is old is gone", async || {
            (self.rows().await == 2).then_some(())
        })
        .await;
        for days in [30, 20] {
            let gone = format!("to_regclass('{}') IS NULL", table(days));
            eventually(SOON, "the old day is gone", async || {
                self.ask(&gone).await.then_some(())
            })
            .await;
        }
        for id in self.kept {
            let there = format!("EXISTS (SELECT FROM user_interactions WHERE event_id = '{id}')");
            assert!(self.ask(&there).await, "{id} was to be kept");
        }
    }
}

async fn leads(app: &App) -> bool {
    app.metric_with("eclusa_lease_held", &LEASE).await == 1.0
}

async fn wait_leads(app: &App) {
    eventually(SOON, "it leads", async || leads(app).await.then_some(())).await;
}

#[tokio::test]
async fn old_events_go_and_those_to_keep_stay() {
    let log = Log::with(4_500).await;
    let app = log.keeper().start().await;
    log.is_trimmed().await;
    eventually(SOON, "it is counted", async || {
        let metrics = app.metrics().await;
        let days = metrics.sum("eclusa_retention_partitions_dropped_total", &[]);
        let rows = metrics.sum("eclusa_retention_rows_deleted_total", &[]);
        (days == 2.0 && rows == 4_500.0).then_some(())
    })
    .await;
    // A query may have had a lock on a day for a moment; the next round then drops it.
    let failures = app.metric("eclusa_retention_failures_total").await;
    assert!(failures <= 2.0, "{failures}");
    // A day that was dropped is refused, and says by which settings.
    let refused = post(&app, log.old[0]).await;
    assert_eq!(refused.status(), 400);
    let text = refused.text().await.unwrap();
    assert!(text.contains("store.retention"), "{text}");
    assert_eq!(post(&app, id_of(10)).await.status(), 202);
}

#[tokio::test]
async fn old_events_go_from_the_embedded_file_too() {
    let folder = temp_dir("retention-");
    let builder = || {
        App::builder()
            .embedded(folder.path())
            .set("pix.enabled", false)
    };
    let mut app = builder().start().await;
    let events: Vec<_> = (0..900)
        .map(|_| json!({"userId": "u", "eventType": "t"}))
        .collect();
    for _ in 0..5 {
        assert_eq!(app.post("/v1/events", &json!(events)).await.status(), 202);
    }
    // Who keeps everything has nothing to do, and writes nothing while nothing happens.
    assert!(!leads(&app).await);
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
    {
        use diesel::connection::SimpleConnection;
        use diesel::{Connection, SqliteConnection};
        let file = folder.path().join("eclusa.db");
        let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        connection
            .batch_execute(
                "UPDATE user_interactions SET received_at = received_at - 86400000000 * 11",
            )
            .unwrap();
    }
    let mut app = builder()
        .set("store.retention", "10d")
        .set("store.lease_ttl", "10m")
        .start()
        .await;
    let kept = Uuid::now_v7();
    assert_eq!(post(&app, kept).await.status(), 202);
    eventually(SOON, "what is old is gone", async || {
        let page = app.get_json("/v1/events?limit=10").await;
        (page["events"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    assert_eq!(
        app.get(&format!("/v1/events/{kept}")).await.status(),
        reqwest::StatusCode::OK
    );
    // The lease of a process that was killed does not keep the next one waiting.
    wait_leads(&app).await;
    app.kill9();
    app.start_again().await;
    wait_leads(&app).await;
}

#[tokio::test]
async fn one_leads_and_another_takes_over() {
    let log = Log::with(0).await;
    let keeper = || log.keeper().set("store.lease_ttl", "3s");
    let mut first = keeper().start().await;
    wait_leads(&first).await;
    let mut second = keeper().start().await;
    let mut third = keeper().start().await;
    log.is_trimmed().await;
    assert!(!leads(&second).await && !leads(&third).await);
    first.kill9();
    eventually(SOON, "another leads", async || {
        (leads(&second).await || leads(&third).await).then_some(())
    })
    .await;
    if leads(&third).await {
        std::mem::swap(&mut second, &mut third);
    }
    let (leader, other) = (&mut second, &third);
    assert!(!leads(other).await);
    // One that stops as it should gives the lease back, and nobody has to wait for its end.
    leader.sigterm();
    assert!(leader.wait_exit(SOON).await.success());
    leader.wait_for_log(SOON, "lease given back").await;
    wait_leads(other).await;
}

/// Dies after one of two days is dropped, and between two slices of deletions; the next process
/// finds what is left and goes on.
#[tokio::test]
async fn killed_between_any_two_steps() {
    for point in ["retention.dropped", "retention.slice"] {
        let log = Log::with(2_500).await;
        let mut app = log
            .keeper()
            .env("ECLUSA_FAILPOINTS", &format!("{point}=0:1:kill"))
            .start()
            .await;
        eventually(SOON, &format!("it dies at {point}"), async || {
            app.has_exited().then_some(())
        })
        .await;
        assert!(log.rows().await > 2, "killed at {point}, before the end");
        let _second = log.keeper().start().await;
        log.is_trimmed().await;
    }
}

/// An actor that panics goes on with the next round.
#[tokio::test]
async fn a_panic_costs_a_round() {
    let log = Log::with(2_500).await;
    let app = log
        .keeper()
        .env("ECLUSA_FAILPOINTS", "retention.dropped=0:1:panic")
        .start()
        .await;
    log.is_trimmed().await;
    let restarts = app.metric_with("eclusa_actor_restarts_total", &[("actor", "retention")]);
    assert_eq!(restarts.await, 1.0);
}

/// A batch that commits late has lower ids than what was deleted before.
#[tokio::test]
async fn old_rows_that_come_late_go_with_the_next_round() {
    let log = Log::with(2_500).await;
    // As long as this stands, the drop fails, and so there are rounds soon after each other.
    let view = format!("CREATE VIEW mine AS SELECT * FROM {}", table(20));
    log.sql(&view).await;
    let app = log.keeper().start().await;
    eventually(SOON, "what is old is deleted", async || {
        let rows = app.metric("eclusa_retention_rows_deleted_total").await;
        (log.rows().await == 3 && rows == 2_500.0).then_some(())
    })
    .await;
    log.sql(
        "INSERT INTO user_interactions \
             (id, event_id, bucket, source, producer, event_type, received_at) \
         VALUES (5, gen_random_uuid(), '0001-01-01', 'http', 'tests', 't', \
                 now() - interval '30 days')",
    )
    .await;
    eventually(SOON, "the late one is deleted", async || {
        (log.rows().await == 3).then_some(())
    })
    .await;
    assert!(app.metric("eclusa_retention_failures_total").await >= 1.0);
    log.sql("DROP VIEW mine").await;
    log.is_trimmed().await;
}

/// A query that takes long holds up the drop, and no event: at each try an insert waits for 100 ms
/// at most. Here the server ends inserts that wait for more than 150 ms; on a busy machine, where a
/// try itself may take longer, up to half of the tries may be late.
#[tokio::test]
async fn a_long_query_holds_up_no_event() {
    const TRIES: f64 = 4.0;
    let log = Log::with(0).await;
    let mut reader = crate::harness::connect(&log.database).await;
    let open = reader.transaction().await.unwrap();
    let count = "SELECT count(*) FROM user_interactions";
    assert_eq!(
        open.query_one(count, &[]).await.unwrap().get::<_, i64>(0),
        4
    );
    let app = log.keeper().start().await;
    let mut client = crate::harness::connect(&log.database).await;
    let (mut posted, mut late) = (0, 0.0);
    loop {
        assert_eq!(post(&app, id_of(posted % 9)).await.status(), 202);
        posted += 1;
        for _ in 0..20 {
            if !insert_at_once(&mut client).await {
                late += 1.0;
            }
        }
        if app.metric("eclusa_retention_failures_total").await >= TRIES {
            break;
        }
    }
    assert!(late <= TRIES / 2.0, "{late} of {TRIES}");
    open.commit().await.unwrap();
    eventually(SOON, "the old days are gone", async || {
        (log.rows().await == 2 + posted as i64).then_some(())
    })
    .await;
}

/// The leader stands still between two tries to drop a day, and another with other settings takes
/// over. When it wakes up, it can do no harm.
#[tokio::test]
async fn a_leader_that_wakes_up_too_late_drops_nothing() {
    let log = Log::with(0).await;
    let mut reader = crate::harness::connect(&log.database).await;
    let open = reader.transaction().await.unwrap();
    open.query("SELECT count(*) FROM user_interactions", &[])
        .await
        .unwrap();
    let mut sleeper = log.keeper().start().await;
    eventually(SOON, "it has tried", async || {
        let failures = sleeper.metric("eclusa_retention_failures_total").await;
        (failures >= 1.0).then_some(())
    })
    .await;
    sleeper.pause();
    let other = log.app().start().await;
    wait_leads(&other).await;
    open.commit().await.unwrap();
    sleeper.resume();
    sleeper.wait_for_log(SOON, "lease lost").await;
    assert!(leads(&other).await && !leads(&sleeper).await);
    assert_eq!(log.rows().await, 4);
    let dropped = sleeper
        .metric("eclusa_retention_partitions_dropped_total")
        .await;
    assert_eq!(dropped, 0.0);
}

/// The same between two slices of deletions, or within one.
#[tokio::test]
async fn a_leader_that_wakes_up_too_late_deletes_nothing() {
    let log = Log::with(60_000).await;
    let whole = log.rows().await;
    let mut sleeper = log.keeper().start().await;
    eventually(SOON, "it deletes", async || {
        (log.rows().await < whole).then_some(())
    })
    .await;
    sleeper.pause();
    let other = log.app().start().await;
    wait_leads(&other).await;
    let left = log.rows().await;
    assert!(left > 2, "paused too late");
    sleeper.resume();
    sleeper.wait_for_log(SOON, "lease lost").await;
    // Between two slices it asks for the lease; within one PostgreSQL has ended its transaction.
    let refused = ["the lease is another's", "retention incomplete"];
    eventually(SOON, "its slice is refused", async || {
        let logs = sleeper.logs();
        refused
            .iter()
            .any(|reason| logs.iter().any(|line| line.contains(reason)))
            .then_some(())
    })
    .await;
    assert_eq!(log.rows().await, left);
    assert!(leads(&other).await);
}

/// At the door of AMQP an id that is too old is a dead letter; in a frame it was accepted by some
/// door, so it becomes a row, which goes with the next round.
#[tokio::test]
async fn an_old_id_over_amqp_is_put_aside_and_in_a_frame_is_stored() {
    let database = Postgres::shared().await.database().await;
    let vhost = RabbitMq::shared().await.vhost().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "200ms")
        .set("store.retention", "10d")
        .start()
        .await;
    app.wait_ready().await;
    let body = json!({"id": id_of(11), "eventType": "t"}).to_string();
    crate::amqp::publish(&vhost, "x", "eclusa.events", body.as_bytes(), None).await;
    eventually(SOON, "it is put aside", async || {
        let labels = [("cause", "invalid")];
        let letters = app.metric_with("eclusa_events_dead_lettered_total", &labels);
        (letters.await == 1.0).then_some(())
    })
    .await;
    let late = id_of(11);
    publish_frame(&vhost, late).await;
    eventually(SOON, "it is a row", async || {
        let response = app.get(&format!("/v1/events/{late}")).await;
        (response.status() == 200).then_some(())
    })
    .await;
}

async fn publish_frame(vhost: &str, id: Uuid) {
    let mut encoder = frame::Encoder::default();
    encoder
        .push(&Event {
            event_id: id,
            original_id: None,
            producer: "p".into(),
            user_id: Some("u".to_owned()),
            event_type: "t".to_owned(),
            event_data: RawValue::from_string("{}".to_owned()).unwrap(),
            schema_version: None,
            session_id: None,
            timestamp: None,
            received_at: item::now(),
            source: Source::Http,
        })
        .unwrap();
    let mut headers = FieldTable::default();
    headers.insert(
        frame::VERSION_HEADER.into(),
        AMQPValue::LongLongInt(frame::VERSION),
    );
    let connection = Connection::connect(vhost, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let properties = BasicProperties::default().with_headers(headers);
    channel
        .basic_publish(
            "".into(),
            "eclusa.events".into(),
            lapin::options::BasicPublishOptions::default(),
            &encoder.finish(),
            properties,
        )
        .await
        .unwrap()
        .await
        .unwrap();
}

//! Publishers that know nothing of Eclusa, and what becomes of the broker meanwhile.

use crate::harness::{App, Postgres, RabbitMq, confirming, eventually, precondition, program};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// Publishes one message with a confirm, as a foreign publisher would.
pub async fn publish(url: &str, key: &str, exchange: &str, body: &[u8], message_id: Option<&str>) {
    let channel = confirming(url).await;
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(id) = message_id {
        properties = properties.with_message_id(id.into());
    }
    let options = BasicPublishOptions::default();
    let confirm = channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await
        .unwrap();
    assert!(confirm.await.unwrap().is_ack());
}

pub struct Bench {
    pub app: App,
    pub vhost: String,
    database: String,
}

pub async fn bench(set: &[(&str, Value)]) -> Bench {
    let database = Postgres::shared().await.database().await;
    let vhost = RabbitMq::shared().await.vhost().await;
    let mut builder = App::builder()
        .postgres(&database)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "200ms");
    for (key, value) in set {
        builder = builder.set(key, value.clone());
    }
    let app = builder.start().await;
    app.wait_ready().await;
    Bench {
        app,
        vhost,
        database,
    }
}

impl Bench {
    pub async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        Postgres::shared()
            .await
            .query(&self.database, sql, &[])
            .await[0]
            .get(0)
    }

    /// Waits until so many events have been consumed.
    pub async fn wait_taken(&self, count: f64) {
        eventually(SOON, "the messages are consumed", async || {
            let consumed = [("path", "consume"), ("outcome", "taken")];
            let taken = self
                .app
                .metric_with("eclusa_accounted_events_total", &consumed);
            (taken.await >= count).then_some(())
        })
        .await;
    }

    /// Waits until nothing is in flight and the work queue is empty.
    pub async fn wait_settled(&self) {
        let connection = Connection::connect(&self.vhost, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        eventually(SOON, "all messages are settled", async || {
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let queue = channel
                .queue_declare("eclusa.events".into(), options, FieldTable::default())
                .await
                .unwrap();
            let in_flight = self.app.metric("eclusa_events_in_flight").await;
            (queue.message_count() == 0 && in_flight == 0.0).then_some(())
        })
        .await;
    }

    pub async fn wait_rows(&self, count: i64) {
        eventually(SOON, "the events are rows", async || {
            (self.rows().await >= count).then_some(())
        })
        .await;
        assert_eq!(self.rows().await, count);
    }
}

/// One dead letter, with its cause.
async fn dead_letter(vhost: &str) -> (Vec<u8>, String) {
    let connection = Connection::connect(vhost, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume(
            "eclusa.dlq".into(),
            "test".into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let message = tokio::time::timeout(SOON, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let headers = message.properties.headers().clone().unwrap();
    let cause = match headers.inner().get("eclusa-cause") {
        Some(AMQPValue::LongString(cause)) => cause.to_string(),
        other => panic!("no cause: {other:?}"),
    };
    (message.data, cause)
}

#[tokio::test]
async fn a_pika_publisher_reaches_the_rows_by_every_way() {
    // The system's Python: another one that comes first in PATH does not see Debian's packages.
    const PYTHON: &str = "/usr/bin/python3";
    let pika = program(PYTHON, &["-c", "import pika"]);
    if precondition("python3-pika", pika).is_none() {
        return;
    }
    let bench = bench(&[]).await;
    let script = r#"
import json, pika, sys
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.confirm_delivery()
def event(n):
    return {"userId": f"u{n}", "eventType": "order.placed", "eventData": {"n": n}, "sessionId": "s"}
def send(exchange, key, body, **properties):
    channel.basic_publish(exchange, key, json.dumps(body), pika.BasicProperties(**properties), mandatory=True)
send("eclusa.events", "orders.new", event(1))
send("", "eclusa.events", event(2))
send("eclusa.events", "orders", [event(3), event(4)], content_type="application/json")
send("", "eclusa.events", {"pattern": "order.placed", "data": event(5)})
send("", "eclusa.events", {"pattern": {"cmd": "order"}, "data": [event(6), event(7)], "id": "rpc-1"})
send("", "eclusa.events", {"pattern": "order.placed", "data": {"userId": "u8", "eventData": {"n": 8}}})
for _ in range(2):
    send("", "eclusa.events", event(9), message_id="message-9")
    send("", "eclusa.events", {**event(10), "id": "body-10"}, message_id=str(_))
connection.close()
"#;
    let output = Command::new(PYTHON)
        .args(["-c", script, &bench.vhost])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    bench.wait_rows(10).await;
    let sql = "SELECT (event_data->>'n')::int, user_id, event_type, source FROM user_interactions ORDER BY 1";
    let rows = Postgres::shared()
        .await
        .query(&bench.database, sql, &[])
        .await;
    for (row, n) in rows.iter().zip(1..) {
        let user = format!("u{n}");
        assert_eq!(
            (row.get::<_, i32>(0), row.get::<_, &str>(1)),
            (n, user.as_str())
        );
        assert_eq!(
            (row.get::<_, &str>(2), row.get::<_, &str>(3)),
            ("order.placed", "amqp")
        );
    }
    assert_eq!(
        bench.app.metric("eclusa_events_dead_lettered_total").await,
        0.0
    );
}

#[tokio::test]
async fn what_is_no_event_is_dead_lettered_with_its_bytes_and_harms_nobody() {
    // This test is the one that reads the queue.
    let bench = bench(&[("dead_letters.project", json!(false))]).await;
    let good = r#"{"eventType":"t","userId":"u"}"#;
    let items = format!(r#"[{good}, {{"eventType":7}}, {good}]"#);
    publish(&bench.vhost, "eclusa.events", "", b"\xff\x00nonsense", None).await;
    bench_dead(&bench, "malformed", 1.0).await;
    assert_eq!(
        dead_letter(&bench.vhost).await,
        (b"\xff\x00nonsense".to_vec(), "malformed".to_owned())
    );
    publish(&bench.vhost, "eclusa.events", "", items.as_bytes(), None).await;
    bench_dead(&bench, "invalid", 1.0).await;
    assert_eq!(
        dead_letter(&bench.vhost).await,
        (br#"{"eventType":7}"#.to_vec(), "invalid".to_owned())
    );
    bench.wait_rows(2).await;
}

async fn bench_dead(bench: &Bench, cause: &str, count: f64) {
    eventually(SOON, "it is dead-lettered", async || {
        let labels = [("cause", cause)];
        let dead = bench
            .app
            .metric_with("eclusa_events_dead_lettered_total", &labels)
            .await;
        (dead == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_message_without_any_id_is_known_by_its_content_if_so_set() {
    let bench = bench(&[("broker.missing_id", json!("content"))]).await;
    for text in [
        r#"{"eventType":"a"}"#,
        r#"{"eventType":"a"}"#,
        r#"{"eventType":"b"}"#,
    ] {
        publish(&bench.vhost, "eclusa.events", "", text.as_bytes(), None).await;
    }
    eventually(SOON, "all are settled", async || {
        (bench.app.metric("eclusa_events_duplicate_total").await == 1.0).then_some(())
    })
    .await;
    bench.wait_rows(2).await;
}

#[tokio::test]
async fn a_queue_that_exists_with_other_arguments_is_adopted() {
    let vhost = RabbitMq::shared().await.vhost().await;
    let connection = Connection::connect(&vhost, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("jobs".into(), options, FieldTable::default())
        .await
        .unwrap();
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&vhost)
        .env("RABBITMQ_QUEUE", "jobs")
        .set("batch.max_wait", "100ms")
        .start()
        .await;
    app.wait_ready().await;
    app.wait_for_log(SOON, "used as it is").await;
    let event = json!({"userId": "u", "eventType": "t"});
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    eventually(SOON, "it is stored", async || {
        (app.metric("eclusa_events_stored_total").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let bench = bench(&[("broker.reconnect_max", json!("1s"))]).await;
    let connection = Connection::connect(&bench.vhost, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete("eclusa.events".into(), Default::default())
        .await
        .unwrap();
    // Nobody posts: the consumer alone has to notice.
    eventually(SOON, "the queue is consumed again", async || {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = connection.create_channel().await.ok()?;
        let queue = channel
            .queue_declare("eclusa.events".into(), passive, FieldTable::default())
            .await
            .ok()?;
        (queue.consumer_count() == 1).then_some(())
    })
    .await;
    let event = json!({"id": "after", "userId": "u", "eventType": "t"});
    eventually(SOON, "an event is taken again", async || {
        (bench.app.post("/v1/events", &event).await.status() == 202).then_some(())
    })
    .await;
    bench.wait_rows(1).await;
}

#[tokio::test]
async fn the_broker_away_is_said_and_survived() {
    let mut rabbitmq = RabbitMq::start().await;
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&rabbitmq.vhost().await)
        .set("batch.max_wait", "200ms")
        .set("broker.reconnect_max", "1s")
        .set("broker.fallback", "refuse")
        .start()
        .await;
    app.wait_ready().await;
    let event = |n: usize| json!({"id": format!("e{n}"), "userId": "u", "eventType": "t"});
    for n in 0..20 {
        assert_eq!(app.post("/v1/events", &event(n)).await.status(), 202);
    }
    rabbitmq.kill9().await;
    eventually(SOON, "it says that it is not ready", async || {
        (!app.is_ready().await).then_some(())
    })
    .await;
    let response = app.post("/v1/events", &event(20)).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["ids"].as_array().unwrap().len(), 1);
    assert_eq!(app.metric("eclusa_broker_connected").await, 0.0);

    rabbitmq.start_again().await;
    app.wait_ready().await;
    for n in 20..40 {
        eventually(SOON, "the event is taken", async || {
            (app.post("/v1/events", &event(n)).await.status() == 202).then_some(())
        })
        .await;
    }
    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        postgres.query(&database, sql, &[]).await[0].get(0)
    };
    eventually(SOON, "all are rows", async || {
        (count().await >= 40).then_some(())
    })
    .await;
    assert_eq!(count().await, 40);
}

#[tokio::test]
async fn the_store_away_spends_no_attempt_and_loses_nothing() {
    let mut postgres = Postgres::start().await;
    let database = postgres.database().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", "100ms")
        .set("retry.max_attempts", 1)
        .start()
        .await;
    app.wait_ready().await;
    let event = |n: usize| json!({"id": format!("e{n}"), "userId": "u", "eventType": "t"});
    for n in 0..20 {
        assert_eq!(app.post("/v1/events", &event(n)).await.status(), 202);
    }
    postgres.kill9();
    for n in 20..60 {
        assert_eq!(
            app.post("/v1/events", &event(n)).await.status(),
            202,
            "the queue takes them"
        );
    }
    app.wait_for_log(SOON, "batch not written").await;
    postgres.start_again().await;
    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM user_interactions";
        postgres.query(&database, sql, &[]).await[0].get(0)
    };
    eventually(SOON, "all are rows", async || {
        (count().await >= 60).then_some(())
    })
    .await;
    assert_eq!(count().await, 60);
    assert_eq!(app.metric("eclusa_events_dead_lettered_total").await, 0.0);
    assert_eq!(app.metric("eclusa_events_retried_total").await, 0.0);
}

#[tokio::test]
async fn the_version_of_a_broker_is_asked_over_tls_too() {
    let rabbitmq = RabbitMq::start_with_tls().await;
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&rabbitmq.tls_url("%2f"))
        .env("SSL_CERT_FILE", rabbitmq.certificate().to_str().unwrap())
        .set("log.filter", "info,eclusa::broker=debug")
        .set("batch.max_wait", "200ms")
        .start()
        .await;
    app.wait_ready().await;
    let line = app.wait_for_log(SOON, "broker version").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let told = rabbitmq.eval("rabbit_misc:version()").await;
    let (major, minor) = (line["major"].as_u64(), line["minor"].as_u64());
    let version = format!("\"{}.{}.", major.unwrap(), minor.unwrap());
    assert!(told.starts_with(&version), "{told} {line}");
    let event = json!({"userId": "u", "eventType": "t"});
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    eventually(SOON, "it is stored", async || {
        (app.metric("eclusa_events_stored_total").await == 1.0).then_some(())
    })
    .await;
}

//! The harness itself: what the other tests rely on without looking.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;

use crate::harness::{App, Metrics, Postgres, RabbitMq, connect, eventually, free_port, temp_dir};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn databases_of_the_shared_postgres_are_apart() {
    let postgres = Postgres::shared().await;
    let (one, two) = (postgres.database().await, postgres.database().await);
    for url in [&one, &two] {
        let sql = "CREATE TABLE t (n int); INSERT INTO t VALUES (1)";
        postgres.execute(url, sql).await;
    }
    let rows = postgres.query(&one, "SELECT n FROM t", &[]).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        postgres.url("postgres").rsplit('/').next(),
        Some("postgres")
    );
    assert!(one.contains(&postgres.port().to_string()));
}

#[tokio::test]
async fn postgres_keeps_a_committed_row_over_kill_9_and_stop() {
    let mut postgres = Postgres::start().await;
    let url = postgres.database().await;
    let open = connect(&url).await;
    open.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();

    postgres.kill9();
    eventually(SOON, "the connection notices", async || {
        open.query("SELECT 1", &[]).await.is_err().then_some(())
    })
    .await;
    postgres.start_again().await;
    assert_eq!(postgres.query(&url, "SELECT * FROM t", &[]).await.len(), 1);

    postgres.stop().await;
    postgres.start_again().await;
    assert_eq!(postgres.query(&url, "SELECT * FROM t", &[]).await.len(), 1);
}

#[tokio::test]
async fn a_paused_postgres_answers_only_once_resumed() {
    let mut postgres = Postgres::start().await;
    let client = connect(&postgres.url("postgres")).await;
    postgres.pause();
    let mut answer = std::pin::pin!(client.query("SELECT 1", &[]));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "answered while paused");
    postgres.resume();
    assert_eq!(answer.await.unwrap().len(), 1);
    // And a paused one is killed like any other.
    postgres.pause();
    postgres.kill9();
    postgres.start_again().await;
}

#[tokio::test]
async fn rabbitmq_keeps_a_confirmed_message_over_kill_9_and_stop() {
    let mut rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    let channel = channel(&url).await;
    declare_quorum_queue(&channel, "q").await;
    publish(&channel, "q", b"one").await;

    rabbitmq.kill9().await;
    eventually(SOON, "the connection notices", async || {
        (!channel.status().connected()).then_some(())
    })
    .await;
    rabbitmq.start_again().await;
    assert_eq!(get(&url, "q").await, Some(b"one".to_vec()));

    rabbitmq.stop().await;
    rabbitmq.start_again().await;
    assert_eq!(get(&url, "q").await, Some(b"one".to_vec()));
}

#[tokio::test]
async fn a_paused_rabbitmq_answers_only_once_resumed() {
    let mut rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    let channel = channel(&url).await;
    rabbitmq.pause();
    let mut declared = std::pin::pin!(declare_quorum_queue(&channel, "q"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut declared).await;
    assert!(early.is_err(), "answered while paused");
    rabbitmq.resume();
    declared.await;
}

#[tokio::test]
async fn virtual_hosts_of_the_shared_rabbitmq_are_apart() {
    let rabbitmq = RabbitMq::shared().await;
    let (one, two) = (rabbitmq.vhost().await, rabbitmq.vhost().await);
    let (first, second) = (channel(&one).await, channel(&two).await);
    declare_quorum_queue(&first, "q").await;
    declare_quorum_queue(&second, "q").await;
    publish(&first, "q", b"one").await;

    assert_eq!(get(&two, "q").await, None);
    assert_eq!(get(&one, "q").await, Some(b"one".to_vec()));
    let vhost = one.rsplit('/').next().unwrap();
    let queues = rabbitmq.ctl(&["list_queues", "-p", vhost, "name"]).await;
    assert!(queues.lines().any(|line| line == "q"), "{queues}");
    assert_eq!(rabbitmq.eval("1 + 1").await, "2");
    assert!(rabbitmq.url("%2f").contains(&rabbitmq.port().to_string()));
}

#[tokio::test]
async fn the_app_runs_stops_is_killed_and_starts_again() {
    let dir = temp_dir("embedded-");
    let mut app = App::builder()
        .embedded(dir.path())
        .set("batch.max_events", 10)
        .env("ECLUSA__BATCH__MAX_WAIT", "1s")
        .start()
        .await;
    app.wait_ready().await;
    assert_eq!(app.metric("eclusa_no_such_metric").await, 0.0);
    assert!(app.metrics().await.sum("eclusa_no_such_metric", &[]) == 0.0);
    let absent = app.metric_with("eclusa_batches_flushed_total", &[("trigger", "none")]);
    assert_eq!(absent.await, 0.0);

    app.rewrite_config("batch.max_events", 20);
    app.sighup();
    app.wait_for_log(SOON, "settings reloaded").await;
    assert!(app.is_ready().await);

    let first = app.url().to_owned();
    app.kill9();
    assert!(!app.wait_exit(SOON).await.success());
    let event = json!({"userId": "u", "eventType": "t", "eventData": {}});
    let sent = app.try_post("/v1/events", "application/json", event.to_string());
    assert!(sent.await.is_err());

    app.start_again().await;
    app.wait_ready().await;
    assert_ne!(app.url(), first);
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);

    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
    assert!(app.folder().join("eclusa.toml").is_file());
}

#[tokio::test]
async fn the_app_runs_on_both_servers() {
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .start()
        .await;
    app.wait_ready().await;
    assert_eq!(app.get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn an_app_that_refuses_its_settings_tells() {
    let app = App::builder().set("nonsense.key", json!(["a", {"b": true}]));
    let (status, told) = app.refused().await;
    assert!(!status.success());
    assert!(told.contains("is not a setting"), "{told}");
}

#[test]
fn metrics_are_read_exactly() {
    let metrics = Metrics::parse(
        "# HELP a_total of a\n# TYPE a_total counter\n\
         a_total{k=\"x\",l=\"1\"} 2\na_total{k=\"x\",l=\"2\"} 3\na_total{k=\"y, }\\\"\",l=\"1\"} 4\n\
         a_total_more 100\nb 1e3 1700000000\nc NaN\n",
    );
    assert_eq!(metrics.sum("a_total", &[]), 9.0);
    assert_eq!(metrics.sum("a_total", &[("k", "x")]), 5.0);
    assert_eq!(metrics.sum("a_total", &[("l", "1"), ("k", "y, }\"")]), 4.0);
    assert_eq!(metrics.sum("b", &[]), 1000.0);
    assert_eq!(metrics.sum("missing", &[]), 0.0);
}

#[test]
fn ports_differ_and_stay_below_the_ephemeral_range() {
    let (one, two) = (free_port(), free_port());
    assert_ne!(one, two);
    assert!(one < 32_768 && two < 32_768);
}

#[tokio::test]
#[should_panic(expected = "never comes")]
async fn waiting_ends_at_the_deadline_even_if_the_attempt_hangs() {
    eventually(Duration::from_millis(50), "never comes", async || {
        std::future::pending::<Option<()>>().await
    })
    .await;
}

async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    let confirm = ConfirmSelectOptions::default();
    channel.confirm_select(confirm).await.unwrap();
    channel
}

async fn declare_quorum_queue(channel: &Channel, name: &str) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let durable = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(name.into(), durable, arguments).await;
    declared.unwrap();
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirm = channel
        .basic_publish("".into(), queue.into(), options, body, persistent)
        .await
        .unwrap()
        .await
        .unwrap();
    assert!(confirm.is_ack());
}

/// Takes without acknowledging, so the message is there again afterwards.
async fn get(url: &str, queue: &str) -> Option<Vec<u8>> {
    let channel = channel(url).await;
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    got.await.unwrap().map(|message| message.delivery.data)
}

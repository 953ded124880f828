//! Full mode: by way of the dead-letter queue into the table.

use super::*;
use crate::amqp::publish;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

#[tokio::test]
async fn each_is_put_aside_with_its_cause_and_the_mended_ones_become_rows() {
    let bench = Bench::full(|builder| builder).await;
    let app = &bench.app;
    bench.sql(FORBID).await;
    bench.post("good", 0, 20).await;
    bench.post("bad", 0, 5).await;
    publish(
        bench.vhost(),
        "eclusa.events",
        "",
        b"\xff\x00no",
        Some("m-1"),
    )
    .await;
    let good = r#"{"eventType":"good","eventData":{"n":100}}"#;
    let items = format!(r#"[{good},{{"eventType":7}},{good},{{"x":1}}]"#);
    publish(bench.vhost(), "", "eclusa.events", b"", None).await;
    publish(
        bench.vhost(),
        "eclusa.events",
        "",
        items.as_bytes(),
        Some("m-2"),
    )
    .await;
    wait_dead(app, 9).await;
    bench.wait_count("user_interactions", 22).await;

    let malformed = letters(app, "&cause=malformed").await;
    assert_eq!(malformed.len(), 2);
    let mine = malformed.iter().find(|letter| letter["bodyBytes"] == 4);
    let whole = letter(app, &mine.unwrap()["id"]).await;
    assert_eq!(
        (&whole["body"], &whole["bodyEncoding"]),
        (&json!("/wBubw=="), &json!("base64"))
    );
    assert_eq!(whole["messageId"], "m-1");
    assert_eq!(whole["origin"], "eclusa.events");
    let invalid = letters(app, "&cause=invalid").await;
    assert_eq!(invalid.len(), 2);
    let poison = letters(app, "&cause=poison&eventType=bad").await;
    assert_eq!(poison.len(), 5);
    for letter in &poison {
        assert_eq!(letter["sqlstate"], "23514", "{letter}");
        let error = letter["error"].as_str().unwrap();
        assert!(error.contains("constraint no_bad"), "{error}");
    }
    // Counted at a scrape, but not at each.
    eventually(SOON, "the gauge shows them", async || {
        (app.metric("eclusa_dead_letters").await == 9.0).then_some(())
    })
    .await;

    bench.sql(ALLOW).await;
    let answer = act(app, "replay", json!({"cause": "poison"})).await;
    assert_eq!(
        (&answer["matched"], &answer["replayed"]),
        (&json!(5), &json!(5))
    );
    bench
        .wait_count("user_interactions WHERE event_type = 'bad'", 5)
        .await;
    bench.wait_count("user_interactions", 27).await;
    assert_eq!(letters(app, "&state=replayed").await.len(), 5);
    assert_eq!(app.metric("eclusa_dead_letters_replayed_total").await, 5.0);
    // The rest cannot be read today either.
    let answer = act(app, "replay", json!({})).await;
    assert_eq!(
        (&answer["replayed"], &answer["failed"]),
        (&json!(0), &json!(4))
    );
    assert!(answer["failures"][0]["reason"].is_string());
    assert_eq!(letters(app, "&state=dead").await.len(), 4);
}

#[tokio::test]
async fn a_replay_that_fails_again_keeps_its_history() {
    let bench = Bench::full(|builder| builder).await;
    let app = &bench.app;
    bench.sql(FORBID).await;
    bench.post("bad", 0, 3).await;
    let first = wait_dead(app, 3).await;
    for round in 1..=2 {
        let answer = act(app, "replay", json!({})).await;
        assert_eq!(answer["replayed"], 3);
        let sql = format!(
            "dead_letters WHERE state = 'dead' AND replays = {round} \
             AND jsonb_array_length(history) = {round}"
        );
        bench.wait_count(&sql, 3).await;
    }
    let back = letter(app, &first[0]["id"]).await;
    assert_eq!(back["history"][0]["sqlstate"], "23514");
    assert_eq!(back["history"][0]["at"], first[0]["failedAt"]);
    assert_eq!(back["createdAt"], first[0]["createdAt"]);
    bench.sql(ALLOW).await;
    act(app, "replay", json!({})).await;
    bench.wait_count("user_interactions", 3).await;
    bench
        .wait_count("dead_letters WHERE state = 'replayed' AND replays = 3", 3)
        .await;
}

#[tokio::test]
async fn what_the_broker_put_aside_becomes_rows_too() {
    let bench = Bench::full(|builder| builder).await;
    let app = &bench.app;
    let connection = Connection::connect(bench.vhost(), ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(1));
    arguments.insert("x-dead-letter-exchange".into(), text("eclusa.dlx"));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("short".into(), options, arguments);
    declared.await.unwrap();
    let body = br#"[{"eventType":"a"},{"eventType":"a"},{"eventType":5}]"#;
    publish(bench.vhost(), "short", "", body, Some("m-1")).await;
    publish(
        bench.vhost(),
        "",
        "eclusa.dlx",
        br#"{"eventType":"b"}"#,
        None,
    )
    .await;
    wait_dead(app, 2).await;
    let expired = letters(app, "&cause=expired").await;
    assert_eq!(expired[0]["origin"], "short");
    let whole = letter(app, &expired[0]["id"]).await;
    assert_eq!(whole["headers"]["x-death"][0]["reason"], "expired");
    assert_eq!(letters(app, "&cause=unknown").await.len(), 1);
    let labels = [("cause", "expired")];
    let name = "eclusa_events_dead_lettered_total";
    assert_eq!(app.metric_with(name, &labels).await, 1.0);

    // Twice, and each event is one row; the letter with an item that is none stays.
    for _ in 0..2 {
        let answer = act(app, "replay", json!({})).await;
        assert_eq!(answer["failed"], 1);
        bench.wait_count("user_interactions", 3).await;
    }
    assert_eq!(letters(app, "&state=dead").await.len(), 1);
}

#[tokio::test]
async fn projecting_survives_the_broker_and_the_store() {
    let mut rabbitmq = RabbitMq::start().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.database().await;
    let vhost = rabbitmq.vhost().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&vhost)
        .set("broker.reconnect_max", "1s")
        .start()
        .await;
    app.wait_ready().await;
    publish(&vhost, "eclusa.events", "", b"one", Some("1")).await;
    wait_dead(&app, 1).await;
    rabbitmq.kill9().await;
    rabbitmq.start_again().await;
    app.wait_ready().await;
    publish(&vhost, "eclusa.events", "", b"two", Some("2")).await;
    wait_dead(&app, 2).await;
    postgres.kill9();
    publish(&vhost, "eclusa.events", "", b"three", Some("3")).await;
    app.wait_for_log(SOON, "dead letters not projected").await;
    postgres.start_again().await;
    eventually(SOON, "the third is there", async || {
        let page = app.get("/v1/dead-letters").await.text().await.ok()?;
        let page: Value = serde_json::from_str(&page).ok()?;
        (page["deadLetters"].as_array()?.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_projecting_they_stay_on_the_queue() {
    let bench = Bench::full(|builder| builder.set("dead_letters.project", false)).await;
    publish(bench.vhost(), "eclusa.events", "", b"no event", None).await;
    let name = "eclusa_events_dead_lettered_total";
    eventually(SOON, "it is put aside", async || {
        (bench.app.metric(name).await == 1.0).then_some(())
    })
    .await;
    let connection = Connection::connect(bench.vhost(), ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let message = channel.basic_get("eclusa.dlq".into(), Default::default());
    assert_eq!(message.await.unwrap().unwrap().data, b"no event");
    assert_eq!(bench.count("dead_letters").await, 0);
}

//! Events that fail, for a while or for ever, in the midst of others of the same user.

use super::foreign::put_with;
use super::{Fleet, SOON, Users, event};
use crate::harness::{Postgres, RabbitMq, confirming, eventually};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of one place in every user's order fail with this code, the first so many times.
async fn fail(fleet: &Fleet, n: usize, code: &str, times: usize) {
    let sql = format!(
        "CREATE SEQUENCE failures;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             -- The rows of write probes have no n, and are not counted.
             IF coalesce(NEW.event_data->>'n', '') = '{n}' AND nextval('failures') <= {times} THEN
                 RAISE EXCEPTION 'not now' USING ERRCODE = '{code}';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_interactions
             FOR EACH ROW EXECUTE FUNCTION fail()"
    );
    let postgres = Postgres::shared().await;
    postgres.execute(&fleet.database, &sql).await;
}

fn quick() -> [(&'static str, Value); 3] {
    [
        ("retry.base_delay", json!("20ms")),
        ("retry.max_delay", json!("50ms")),
        ("retry.max_attempts", json!(4)),
    ]
}

/// What the log has of a user, in order.
async fn log(fleet: &Fleet, user: &str) -> Vec<i32> {
    let sql =
        "SELECT (event_data->>'n')::int FROM user_interactions WHERE user_id = $1 ORDER BY id";
    let postgres = Postgres::shared().await;
    let rows = postgres.query(&fleet.database, sql, &[&user]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

async fn send_array(fleet: &Fleet, user: &str, count: usize) {
    let events: Vec<_> = (0..count).map(|n| event(user, n)).collect();
    let response = fleet.apps[0].post("/v1/events", &json!(events)).await;
    assert_eq!(response.status(), 202);
}

#[tokio::test]
async fn an_event_that_fails_for_a_while_is_waited_for() {
    let fleet = Fleet::start(1, &quick()).await;
    // The batch as a whole, its halves, and then the row alone fail some times each.
    fail(&fleet, 7, "40001", 6).await;
    send_array(&fleet, "u0", 20).await;
    fleet.in_order(1, 20).await;
    let app = &fleet.apps[0];
    assert_eq!(
        app.metric("eclusa_events_retried_total").await,
        0.0,
        "no retry queue"
    );
    assert_eq!(app.metric("eclusa_events_dead_lettered_total").await, 0.0);
}

#[tokio::test]
async fn one_that_fails_too_often_is_put_aside_and_those_behind_it_go_on() {
    let fleet = Fleet::start(1, &quick()).await;
    fail(&fleet, 7, "40001", 1_000_000).await;
    send_array(&fleet, "u0", 20).await;
    fleet.wait_rows(19).await;
    let expected: Vec<i32> = (0..20).filter(|n| *n != 7).collect();
    assert_eq!(log(&fleet, "u0").await, expected);
    let app = &fleet.apps[0];
    let dead = app.get_json("/v1/dead-letters").await;
    let letter = &dead["deadLetters"][0];
    assert_eq!(letter["cause"], "retries_exhausted", "{dead}");
    assert_eq!(letter["attempts"], 4, "{dead}");
}

#[tokio::test]
async fn attempts_from_before_it_came_to_its_shard_count() {
    let fleet = Fleet::start(1, &quick()).await;
    fail(&fleet, 7, "40001", 1_000_000).await;
    let mut headers = FieldTable::default();
    headers.insert("eclusa-frame".into(), AMQPValue::LongLongInt(1));
    headers.insert("eclusa-attempts".into(), AMQPValue::LongUInt(2));
    let frame = json!([{
        "id": "8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11", "producer": "p", "userId": "u0",
        "eventType": "step", "eventData": {"n": 7}, "source": "http",
        "receivedAt": "2026-01-01T00:00:00Z"
    }]);
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_headers(headers);
    // As from a retry queue of the time before there was an order.
    let channel = confirming(&fleet.broker).await;
    let (queue, body) = ("eclusa.events", frame.to_string());
    put_with(&channel, queue, body.as_bytes(), properties).await;
    let app = &fleet.apps[0];
    eventually(SOON, "it is put aside", async || {
        (app.metric("eclusa_dead_letters").await == 1.0).then_some(())
    })
    .await;
    let failures = "SELECT last_value FROM failures";
    let postgres = Postgres::shared().await;
    let failures: i64 = postgres.query(&fleet.database, failures, &[]).await[0].get(0);
    assert!(failures <= 2, "{failures} failures, and two before");
    let dead = app.get_json("/v1/dead-letters").await;
    assert_eq!(dead["deadLetters"][0]["attempts"], 4, "{dead}");
}

#[tokio::test]
async fn poison_in_the_midst_is_put_aside_at_once_and_replayed_later() {
    let fleet = Fleet::start(1, &quick()).await;
    fail(&fleet, 7, "22023", 1_000_000).await;
    let users = Users::of(fleet.urls());
    users.send(10, 0, 15).await;
    fleet.wait_rows(140).await;
    let expected: Vec<i32> = (0..15).filter(|n| *n != 7).collect();
    for user in 0..10 {
        assert_eq!(log(&fleet, &format!("u{user}")).await, expected);
    }
    let app = &fleet.apps[0];
    eventually(SOON, "all letters are in the table", async || {
        (app.metric("eclusa_dead_letters").await == 10.0).then_some(())
    })
    .await;
    let postgres = Postgres::shared().await;
    let mended = "DROP TRIGGER fail ON user_interactions";
    postgres.execute(&fleet.database, mended).await;
    let replayed = app.post("/v1/dead-letters/replay", &json!({})).await;
    assert_eq!(replayed.status(), 200);
    fleet.wait_rows(150).await;
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_attempt_and_no_order() {
    let mut postgres = Postgres::start().await;
    let database = postgres.database().await;
    let mut fleet = Fleet {
        apps: Vec::new(),
        database: database.clone(),
        broker: RabbitMq::shared().await.vhost().await,
    };
    let broker = fleet.broker.clone();
    fleet.add(&broker, &quick()).await;
    let users = Users::of(fleet.urls());
    let midway = async {
        users.wait_taken(200).await;
        postgres.kill9();
        // They are taken all the same: the broker has them.
        users.wait_taken(400).await;
        postgres.start_again().await;
    };
    futures::join!(users.send(20, 0, 50), midway);
    eventually(SOON, "every event is a row", async || {
        let sql = "SELECT count(*), count(DISTINCT event_id),
                          count(*) FILTER (WHERE n <> place - 1)
                   FROM (SELECT event_id, (event_data->>'n')::int AS n,
                                row_number() OVER (PARTITION BY user_id ORDER BY id) AS place
                         FROM user_interactions) AS log";
        let row = &postgres.query(&database, sql, &[]).await[0];
        let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        assert_eq!((found[0] - found[1], found[2]), (0, 0));
        (found[0] == 1_000).then_some(())
    })
    .await;
    assert_eq!(
        fleet.apps[0]
            .metric("eclusa_events_dead_lettered_total")
            .await,
        0.0
    );
}

/// Under load actors of one of two replicas panic, one after the other.
async fn panics_cost_no_event_and_no_order(panics: &[(&str, &str)]) {
    const ROUND: usize = 10;
    let fleet = Fleet::start(2, &quick()).await;
    fleet.shared_out(4).await;
    let users = Users::of(fleet.urls());
    let done = AtomicBool::new(false);
    let panicking = async {
        for (actor, point) in panics {
            let before = fleet.restarts(actor).await;
            let app = &fleet.apps[0];
            app.set_failpoint(point, "2:1:panic").await.unwrap();
            eventually(SOON, point, async || {
                (fleet.restarts(actor).await > before).then_some(())
            })
            .await;
        }
        let before = fleet.count().await;
        eventually(SOON, "rows are written", async || {
            (fleet.count().await >= before + 60).then_some(())
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let load = async {
        let mut sent = 0;
        while !done.load(Ordering::Relaxed) {
            users.send(40, sent, ROUND).await;
            sent += ROUND;
        }
        sent
    };
    let (each, ()) = futures::join!(load, panicking);
    fleet.in_order(40, each).await;
    fleet.shared_out(4).await;
}

const CONSUMER: [(&str, &str); 2] = [
    ("shard_consumer", "shard_consumer.push"),
    ("shard_consumer", "amqp_consumer.acknowledge"),
];
const ACCUMULATOR: [(&str, &str); 2] = [
    ("batch_accumulator", "batch_accumulator.push"),
    ("batch_accumulator", "batch_accumulator.dispatch"),
];
const WRITER: [(&str, &str); 2] = [
    ("db_writer", "db_writer.write_batch"),
    ("db_writer", "db_writer.after_commit"),
];
const INGEST: [(&str, &str); 1] = [("http_ingest", "http_ingest.after_confirm")];

#[tokio::test]
async fn a_consumer_that_panics_costs_no_event_and_no_order() {
    panics_cost_no_event_and_no_order(&CONSUMER).await;
}

#[tokio::test]
async fn an_accumulator_that_panics_costs_no_event_and_no_order() {
    panics_cost_no_event_and_no_order(&ACCUMULATOR).await;
}

#[tokio::test]
async fn a_writer_that_panics_costs_no_event_and_no_order() {
    panics_cost_no_event_and_no_order(&WRITER).await;
}

#[tokio::test]
async fn an_ingest_actor_that_panics_costs_no_event_and_no_order() {
    panics_cost_no_event_and_no_order(&INGEST).await;
}

/// Before one has quite recovered, the next one panics.
#[tokio::test]
async fn panics_in_quick_succession_cost_no_event_and_no_order() {
    let all = [&CONSUMER[..], &ACCUMULATOR, &WRITER, &INGEST].concat();
    panics_cost_no_event_and_no_order(&all).await;
}

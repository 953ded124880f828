//! Another number of shards, none of them, or shards where there were none.

use super::foreign::put;
use super::{Fleet, SOON, Users, event};
use crate::harness::{App, Postgres, RabbitMq, confirming, eventually};
use eclusa::broker::Shards;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

const USERS: usize = 50;
const EACH: usize = 20;

fn with_shards(shards: usize) -> [(&'static str, Value); 2] {
    [
        ("broker.shards", json!(shards)),
        ("broker.prefetch", json!(shards * 100)),
    ]
}

/// Takes events that nobody writes, since the store refuses to, and is killed.
async fn leave_a_backlog(fleet: &mut Fleet) {
    let postgres = Postgres::shared().await;
    let lock = "ALTER TABLE user_interactions RENAME TO away";
    postgres.execute(&fleet.database, lock).await;
    let users = Users::of(fleet.urls());
    users.send(USERS, 0, EACH).await;
    let mut app = fleet.apps.remove(0);
    app.kill9();
    let unlock = "ALTER TABLE away RENAME TO user_interactions";
    postgres.execute(&fleet.database, unlock).await;
    assert_eq!(fleet.count().await, 0);
}

#[tokio::test]
async fn what_lies_in_the_old_shards_comes_before_what_comes_next() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    fleet.add(&broker, &with_shards(8)).await;
    Users::of(fleet.urls()).send(USERS, EACH, EACH).await;
    fleet.in_order(USERS, 2 * EACH).await;
    fleet.shared_out(8).await;
    // And back.
    fleet.apps.remove(0).kill9();
    fleet.add(&broker, &with_shards(3)).await;
    Users::of(fleet.urls()).send(USERS, 2 * EACH, 5).await;
    fleet.in_order(USERS, 2 * EACH + 5).await;
}

/// The messages of others may lie on a shard's queue, where the operator's manual invites them.
#[tokio::test]
async fn foreign_messages_in_the_old_shards_are_read_as_at_any_door() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    let channel = confirming(&broker).await;
    let shards = Shards {
        count: 4,
        prefetch: 1,
    };
    for user in (0..USERS).map(|user| format!("u{user}")) {
        let queue = shards.queue("eclusa.events", shards.of_user(&user));
        put(&channel, &queue, event(&user, EACH).to_string().as_bytes()).await;
    }
    put(&channel, &shards.queue("eclusa.events", 0), b"no event").await;
    // An item that is no event would be one if it were a message.
    let nested = json!([[{"eventType": "nested", "userId": "u"}]]).to_string();
    put(
        &channel,
        &shards.queue("eclusa.events", 0),
        nested.as_bytes(),
    )
    .await;
    fleet.add(&broker, &with_shards(8)).await;
    fleet.in_order(USERS, EACH + 1).await;
    let app = &fleet.apps[0];
    let accepted = "eclusa_events_accepted_total";
    let accepted = app.metric_with(accepted, &[("source", "amqp")]).await;
    assert_eq!(accepted, USERS as f64);
    eventually(SOON, "what is no event is put aside", async || {
        (app.metric("eclusa_dead_letters").await == 2.0).then_some(())
    })
    .await;
    assert_eq!(fleet.count_of("nested").await, 0);
    // They have the ids that they have at every door: sent again, they are known.
    Users::of(fleet.urls()).send(USERS, EACH, 2).await;
    fleet.in_order(USERS, EACH + 2).await;
}

#[tokio::test]
async fn while_others_run_with_another_number_a_replica_waits_and_says_so() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let other = App::builder()
        .postgres(&fleet.database)
        .rabbitmq(&fleet.broker)
        .set("broker.order", "user")
        .set("broker.shards", 8)
        .set("broker.prefetch", 800)
        .start()
        .await;
    let waits = async || {
        let ready = other.get("/health/ready").await;
        let text = ready.text().await.unwrap();
        text.contains("replicas still run").then_some(())
    };
    eventually(SOON, "it says what it waits for", waits).await;
    let refused = other.post("/v1/events", &event("u0", 0)).await;
    assert_eq!(refused.status(), 503);
    Users::of(fleet.urls()).send(USERS, 0, EACH).await;
    fleet.apps[0].sigterm();
    assert!(fleet.apps[0].wait_exit(SOON).await.success());
    other.wait_ready().await;
    fleet.apps[0] = other;
    Users::of(fleet.urls()).send(USERS, EACH, EACH).await;
    fleet.in_order(USERS, 2 * EACH).await;
}

#[tokio::test]
async fn a_change_that_is_killed_midway_is_finished_by_the_next_start() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    // When one queue is moved, and one moved and not acknowledged; then when all are.
    for (shards, point) in [
        (8, "moving.after_put=1:1:kill"),
        (7, "layout.marker_deleted=kill"),
    ] {
        let mut changing = App::builder()
            .postgres(&fleet.database)
            .rabbitmq(&broker)
            .set("broker.order", "user")
            .set("broker.shards", shards)
            .set("broker.prefetch", shards * 100)
            .env("ECLUSA_FAILPOINTS", point)
            .start()
            .await;
        assert!(!changing.wait_exit(SOON).await.success());
    }
    // Neither the number before nor one of those begun.
    fleet.add(&broker, &with_shards(5)).await;
    Users::of(fleet.urls()).send(USERS, EACH, EACH).await;
    fleet.in_order(USERS, 2 * EACH).await;
}

/// Both find the old number, nobody running, and begin.
#[tokio::test]
async fn of_two_changes_at_once_one_waits_until_the_other_is_over() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    let start = |shards: usize| {
        App::builder()
            .postgres(&fleet.database)
            .rabbitmq(&broker)
            .set("broker.order", "user")
            .set("broker.shards", shards)
            .set("broker.prefetch", shards * 100)
            .set("batch.max_wait", "100ms")
            .start()
    };
    let mut apps = futures::future::join_all([7, 6, 5].map(start)).await;
    let mut sent = EACH;
    while !apps.is_empty() {
        let first = eventually(SOON, "one of them runs", async || {
            for (place, app) in apps.iter().enumerate() {
                let connected = app.metric("eclusa_broker_connected").await == 1.0;
                if connected && app.is_ready().await {
                    return Some(place);
                }
            }
            None
        })
        .await;
        fleet.apps.push(apps.remove(first));
        Users::of(fleet.urls()).send(USERS, sent, 5).await;
        sent += 5;
        fleet.in_order(USERS, sent).await;
        for waits in &apps {
            let refused = waits.post("/v1/events", &event("u0", sent)).await;
            assert_eq!(refused.status(), 503, "no two numbers are in force");
        }
        let mut over = fleet.apps.remove(0);
        over.sigterm();
        assert!(over.wait_exit(SOON).await.success());
    }
}

/// As it was left by a replica that asked for the number in force when another had just deleted it.
#[tokio::test]
async fn a_record_that_says_nothing_does_not_stand_in_the_way() {
    let broker = RabbitMq::shared().await.vhost().await;
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), kind);
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(0));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = confirming(&broker).await;
    let marker = "eclusa.events.shards".into();
    let declared = channel.queue_declare(marker, options, arguments).await;
    declared.unwrap();
    let fleet = Fleet::start_at(&[broker], &with_shards(4)).await;
    Users::of(fleet.urls()).send(USERS, 0, 1).await;
    fleet.in_order(USERS, 1).await;
}

#[tokio::test]
async fn without_an_order_what_lies_in_the_shards_is_taken_all_the_same() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    fleet.add(&broker, &[("broker.order", json!("none"))]).await;
    fleet.wait_rows(USERS * EACH).await;
    // With an order again, it is waited for until nobody reads the queue without one.
    let ordered = App::builder()
        .postgres(&fleet.database)
        .rabbitmq(&broker)
        .set("broker.order", "user")
        .start()
        .await;
    let waits = async || {
        let text = ordered.get("/health/ready").await.text().await.unwrap();
        text.contains("without an order").then_some(())
    };
    eventually(SOON, "it says what it waits for", waits).await;
    fleet.apps[0].sigterm();
    assert!(fleet.apps[0].wait_exit(SOON).await.success());
    ordered.wait_ready().await;
    fleet.apps[0] = ordered;
    Users::of(fleet.urls()).send(USERS, EACH, EACH).await;
    // What was taken without an order promises none.
    fleet.in_order_from(USERS, EACH, EACH).await;
    assert_eq!(fleet.count().await, (2 * USERS * EACH) as i64);
}

//! Another number of shards, none of them, or shards where there were none.

use super::foreign::put;
use super::{Fleet, SOON, Users, event};
use crate::harness::{App, Direction, Postgres, Proxy, RabbitMq, confirming, eventually};
use eclusa::event::Shards;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

const USERS: usize = 50;
const EACH: usize = 20;

fn with_shards(shards: usize) -> [(&'static str, Value); 2] {
    [
        ("broker.shards", json!(shards)),
        ("broker.shard_prefetch", json!(50)),
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
        .set("broker.shard_prefetch", 50)
        // It works off what the first one leaves, which need not fill a batch.
        .set("batch.max_wait", "100ms")
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

/// It would write events ahead of those in the shards, or to the store past them.
#[tokio::test]
async fn beside_an_order_a_replica_without_one_takes_no_event() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let other = App::builder().postgres(&fleet.database);
    let other = other.rabbitmq(&fleet.broker).start().await;
    let refused = eventually(SOON, "it says what it waits for", async || {
        let refused = other.post("/v1/events", &event("u0", 0)).await;
        let status = refused.status().as_u16();
        assert_eq!(status, 503);
        let text = refused.text().await.unwrap();
        text.contains("replicas still run").then_some(text)
    })
    .await;
    assert!(!other.is_ready().await, "{refused}");
    assert_eq!(fleet.count().await, 0);
    fleet.apps[0].sigterm();
    assert!(fleet.apps[0].wait_exit(SOON).await.success());
    other.wait_ready().await;
    let taken = other.post("/v1/events", &event("u0", 0)).await;
    assert_eq!(taken.status(), 202);
}

#[tokio::test]
async fn a_change_that_is_killed_midway_is_finished_by_the_next_start() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    // In the midst of a former shard, when all are empty, and when the layout is replaced.
    for (shards, point) in [
        (8, "db_writer.after_commit=2:1:kill"),
        (7, "shard_assigner.drained=kill"),
        (6, "shard_assigner.replaced=kill"),
    ] {
        let mut changing = App::builder()
            .postgres(&fleet.database)
            .rabbitmq(&broker)
            .set("broker.order", "user")
            .set("broker.shards", shards)
            .set("broker.shard_prefetch", 50)
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
            .set("broker.shard_prefetch", 50)
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

/// Its messages would be left behind.
#[tokio::test]
async fn the_record_of_an_earlier_release_is_refused_in_words() {
    const RECORD: &str = "eclusa.events.shards";
    let broker = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&broker).await;
    let (options, arguments) = (QueueDeclareOptions::default(), FieldTable::default());
    let declared = channel.queue_declare(RECORD.into(), options, arguments);
    declared.await.unwrap();
    let database = Postgres::shared().await.database().await;
    let mut apps = Vec::new();
    for order in ["user", "none"] {
        let app = App::builder().postgres(&database).rabbitmq(&broker);
        let app = app.set("broker.order", order).start().await;
        app.wait_for_log(SOON, "is the record of an earlier release")
            .await;
        apps.push(app);
    }
    drop(apps.pop());
    let text = apps[0].get("/health/ready").await.text().await.unwrap();
    assert!(text.contains(RECORD), "{text}");
    let refused = apps[0].post("/v1/events", &event("u0", 0)).await;
    assert_eq!(refused.status(), 503);
    let deleted = channel.queue_delete(RECORD.into(), QueueDeleteOptions::default());
    deleted.await.unwrap();
    apps[0].wait_ready().await;
}

/// Its lease runs out, and still it may publish to its shards: the broker has its connection.
#[tokio::test]
async fn a_replica_that_cannot_reach_the_store_keeps_its_shards() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let proxy = Proxy::to(postgres.port()).await;
    let broker = RabbitMq::shared().await.vhost().await;
    let start = |database: &str, shards: usize| {
        App::builder()
            .postgres(database)
            .rabbitmq(&broker)
            .set("broker.order", "user")
            .set("broker.shards", shards)
            .set("broker.shard_prefetch", 50)
            .set("batch.max_wait", "100ms")
            .set("store.statement_timeout", "2s")
            .start()
    };
    let mut fleet = Fleet {
        apps: vec![start(&proxy.url(&database), 4).await],
        database,
        broker: broker.clone(),
    };
    fleet.apps[0].wait_ready().await;
    proxy.drop_silently(Direction::Up);
    proxy.drop_silently(Direction::Down);
    let live = "SELECT count(*) FROM shard_replicas WHERE until > clock_timestamp()";
    eventually(SOON, "its lease has run out", async || {
        let live: i64 = postgres.query(&fleet.database, live, &[]).await[0].get(0);
        (live == 0).then_some(())
    })
    .await;
    let other = start(&fleet.database, 8).await;
    other.wait_for_log(SOON, "replicas still run").await;
    let users = Users::of(fleet.urls());
    users.send(USERS, 0, 2).await;
    proxy.heal();
    fleet.in_order(USERS, 2).await;
    // With its connection its right to publish is gone.
    fleet.apps.remove(0).kill9();
    fleet.apps.push(other);
    fleet.apps[0].wait_ready().await;
    Users::of(fleet.urls()).send(USERS, 2, 2).await;
    fleet.in_order(USERS, 4).await;
}

#[tokio::test]
async fn without_an_order_what_lies_in_the_shards_is_taken_all_the_same() {
    let mut fleet = Fleet::start(1, &with_shards(4)).await;
    let broker = fleet.broker.clone();
    leave_a_backlog(&mut fleet).await;
    fleet.add(&broker, &[("broker.order", json!("none"))]).await;
    fleet.wait_rows(USERS * EACH).await;
    let layouts = "SELECT count(*) FROM shard_layouts";
    eventually(SOON, "the shards are worked off", async || {
        let postgres = Postgres::shared().await;
        let left: i64 = postgres.query(&fleet.database, layouts, &[]).await[0].get(0);
        (left == 0).then_some(())
    })
    .await;
    // It connects anew, as it does when its announcement is lost.
    fleet.apps[0].wait_ready().await;
    let channel = confirming(&broker).await;
    let announced = "eclusa.events.unordered";
    let deleted = channel.queue_delete(announced.into(), QueueDeleteOptions::default());
    deleted.await.unwrap();
    let lost = "no longer a consumer of";
    fleet.apps[0].wait_for_log(SOON, lost).await;
    fleet.apps[0].wait_ready().await;
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

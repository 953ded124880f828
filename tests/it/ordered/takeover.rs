//! Replicas that die, hang, are cut off or leave.

use super::{Fleet, SOON, Users};
use crate::harness::{App, Direction, Postgres, Proxy, RabbitMq, eventually};
use eclusa::event::Shards;
use serde_json::json;
use std::time::{Duration, Instant};

const USERS: usize = 60;
const EACH: usize = 60;
/// A shard of a dead replica is at work again within 10 s on a machine that has time; tests share theirs.
const TAKEN_OVER: Duration = Duration::from_secs(30);

/// Waits until those left have all shards and write; gives how long that took.
async fn taken_over(fleet: &Fleet, left: &[usize], shards: usize) -> Duration {
    let since = Instant::now();
    eventually(SOON, "the others have all shards", async || {
        let mut held = 0;
        for replica in left {
            held += fleet.shards_of(*replica).await;
        }
        (held == shards).then_some(())
    })
    .await;
    // And they write: an event of each shard becomes a row.
    let rows = fleet.count_of("probe").await;
    let of_shards = Shards {
        count: u16::try_from(shards).unwrap(),
        prefetch: 1,
    };
    let mut probed = vec![false; shards];
    for n in 0.. {
        let user = format!("probe-{n}");
        let shard = of_shards.of_user(&user);
        if std::mem::replace(&mut probed[shard], true) {
            continue;
        }
        let mut probe = super::event(&user, 0);
        probe["eventType"] = json!("probe");
        let response = fleet.apps[left[0]].post("/v1/events", &probe).await;
        assert_eq!(response.status(), 202);
        if probed.iter().all(|probed| *probed) {
            break;
        }
    }
    eventually(SOON, "every shard is written", async || {
        (fleet.count_of("probe").await == rows + shards as i64).then_some(())
    })
    .await;
    let took = since.elapsed();
    println!("taken over in {took:?}");
    took
}

/// A replica that has shards.
async fn owner(fleet: &Fleet) -> usize {
    for replica in 0..fleet.apps.len() {
        if fleet.shards_of(replica).await > 0 {
            return replica;
        }
    }
    panic!("nobody has a shard");
}

/// Something happens to a replica that has shards, under load, and is over when others have them.
async fn others_take_over(strike: fn(&mut App), afterwards: fn(&mut App)) {
    let mut fleet = Fleet::start(3, &[]).await;
    fleet.shared_out(4).await;
    let users = Users::of(fleet.urls());
    let victim = owner(&fleet).await;
    let left: Vec<usize> = (0..3).filter(|replica| *replica != victim).collect();
    let midway = async {
        users.wait_taken(USERS * EACH / 3).await;
        strike(&mut fleet.apps[victim]);
        let took = taken_over(&fleet, &left, 4).await;
        assert!(took < TAKEN_OVER, "{took:?}");
        afterwards(&mut fleet.apps[victim]);
    };
    futures::join!(users.send(USERS, 0, EACH), midway);
    fleet.in_order(USERS, EACH).await;
}

#[tokio::test]
async fn a_replica_killed_under_load_loses_doubles_and_swaps_nothing() {
    others_take_over(App::kill9, |_| ()).await;
}

#[tokio::test]
async fn one_that_hangs_loses_its_shards_in_time_and_swaps_nothing_when_it_wakes() {
    others_take_over(|app| app.pause(), |app| app.resume()).await;
}

#[tokio::test]
async fn one_that_is_cut_off_from_the_broker_loses_its_shards_in_time() {
    let rabbitmq = RabbitMq::shared().await;
    let vhost = rabbitmq.vhost().await;
    let proxy = Proxy::to(rabbitmq.port()).await;
    let fleet = Fleet::start_at(&[proxy.url(&vhost), vhost], &[]).await;
    fleet.shared_out(4).await;
    let users = Users::of(fleet.urls());
    let midway = async {
        users.wait_taken(USERS * EACH / 3).await;
        proxy.drop_silently(Direction::Up);
        proxy.drop_silently(Direction::Down);
        let took = taken_over(&fleet, &[1], 4).await;
        assert!(took < TAKEN_OVER, "{took:?}");
        proxy.heal();
    };
    futures::join!(users.send(USERS, 0, EACH), midway);
    fleet.in_order(USERS, EACH).await;
    // Well again, it gets its part.
    fleet.shared_out(4).await;
}

#[tokio::test]
async fn one_that_leaves_hands_over_in_order() {
    let mut fleet = Fleet::start(2, &[]).await;
    fleet.shared_out(4).await;
    let users = Users::of(fleet.urls());
    let midway = async {
        users.wait_taken(USERS * EACH / 3).await;
        fleet.apps[0].sigterm();
        assert!(fleet.apps[0].wait_exit(SOON).await.success());
        taken_over(&fleet, &[1], 4).await
    };
    futures::join!(users.send(USERS, 0, EACH), midway);
    fleet.in_order(USERS, EACH).await;
    let last = &fleet.apps[1];
    assert_eq!(last.metric("eclusa_events_dead_lettered_total").await, 0.0);
}

#[tokio::test]
async fn one_that_joins_gets_its_part_in_order() {
    let mut fleet = Fleet::start(1, &[]).await;
    fleet.shared_out(4).await;
    let users = Users::of(fleet.urls());
    let broker = fleet.broker.clone();
    let joining = async {
        users.wait_taken(USERS * EACH / 4).await;
        fleet.add(&broker, &[]).await;
        fleet.shared_out(4).await;
    };
    futures::join!(users.send(USERS, 0, EACH), joining);
    fleet.in_order(USERS, EACH).await;
}

#[tokio::test]
async fn without_the_broker_callers_are_refused_and_the_order_outlasts_it() {
    let mut rabbitmq = RabbitMq::start().await;
    let vhost = rabbitmq.vhost().await;
    let fleet = Fleet::start_at(&[vhost.clone(), vhost], &[]).await;
    let users = Users::of(fleet.urls());
    let midway = async {
        users.wait_taken(USERS * EACH / 3).await;
        rabbitmq.kill9().await;
        eventually(SOON, "it is unready", async || {
            (!fleet.apps[0].is_ready().await).then_some(())
        })
        .await;
        let response = fleet.apps[0]
            .post("/v1/events", &super::event("x", 0))
            .await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        rabbitmq.start_again().await;
    };
    futures::join!(users.send(USERS, 0, EACH), midway);
    fleet.in_order(USERS, EACH).await;
}

#[tokio::test]
async fn an_array_of_one_user_keeps_its_order() {
    let fleet = Fleet::start(1, &[("broker.max_frame_events", json!(7))]).await;
    let events: Vec<_> = (0..500).map(|n| super::event("u0", n)).collect();
    let response = fleet.apps[0].post("/v1/events", &json!(events)).await;
    assert_eq!(response.status(), 202);
    fleet.in_order(1, 500).await;
    let sql = "SELECT count(*) FROM user_interactions WHERE source = 'http'";
    let postgres = Postgres::shared().await;
    let rows: i64 = postgres.query(&fleet.database, sql, &[]).await[0].get(0);
    assert_eq!(rows, 500);
}

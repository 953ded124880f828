//! PostgreSQL is away, hangs, loses the network, loses a table, or has no connection to spare.

use std::time::Duration;

use super::rig::{Plan, Rig, SOON};
use crate::harness::{Direction, Moment, connect, eventually};

/// Long enough that every writer has run into it.
async fn a_while(rig: &Rig) {
    rig.load.taken_more(SOON, 1_500).await;
}

#[tokio::test]
async fn postgres_killed_and_slow_to_return_in_full_mode() {
    let mut rig = Plan::full().own_postgres().start().await;
    rig.postgres().kill9();
    // The queue takes what comes.
    a_while(&rig).await;
    rig.postgres().start_again().await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn postgres_killed_and_slow_to_return_in_database_mode() {
    let mut rig = Plan::database().own_postgres().start().await;
    rig.postgres().kill9();
    rig.app.wait_for_log(SOON, "batch not written").await;
    eventually(SOON, "it says that it is not ready", async || {
        (!rig.app.is_ready().await).then_some(())
    })
    .await;
    rig.postgres().start_again().await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

#[tokio::test]
async fn postgres_and_rabbitmq_killed_at_once() {
    let plan = Plan::full().own_postgres().own_rabbitmq();
    let mut rig = plan.start().await;
    rig.postgres().kill9();
    rig.rabbitmq().kill9().await;
    rig.app.wait_for_log(SOON, "batch not written").await;
    rig.rabbitmq().start_again().await;
    rig.flows().await;
    rig.postgres().start_again().await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

#[tokio::test]
async fn postgres_stopped_under_load() {
    let plan = Plan::full().own_postgres();
    let mut rig = plan.set("store.statement_timeout", "2s").start().await;
    rig.postgres().pause();
    a_while(&rig).await;
    rig.postgres().resume();
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// The insert is a transaction of one statement; its parameters are the request for its commit.
#[tokio::test]
async fn the_connection_cut_half_way_through_a_commit() {
    for plan in [Plan::full(), Plan::database()] {
        let rig = plan.start().await;
        for (round, moment) in (1..).zip([Moment::Answered, Moment::Before, Moment::Answered]) {
            rig.store_net()
                .cut_when(Direction::Up, b"chaos.type-3", moment);
            eventually(SOON, "the cut", async || {
                (rig.store_net().sprung() == round).then_some(())
            })
            .await;
            rig.flows().await;
        }
        rig.settle().await.assert_all_rows();
        // What was committed unseen came a second time, and was known.
        assert!(rig.app.metric("eclusa_events_duplicate_total").await > 0.0);
        rig.assert_no_attempt_spent().await;
    }
}

#[tokio::test]
async fn a_bad_network_to_postgres() {
    let rig = Plan::full().start().await;
    let net = rig.store_net();
    for _ in 0..5 {
        assert!(net.reset() > 0);
        rig.flows().await;
        net.cut();
        rig.flows().await;
    }
    net.delay(Duration::from_millis(30));
    rig.flows().await;
    net.drop_silently(Direction::Down);
    rig.flows().await;
    net.heal();
    net.refuse();
    net.reset();
    rig.flows().await;
    net.heal();
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

async fn rename(rig: &Rig, from: &str, to: &str) {
    let sql = format!("ALTER TABLE {from} RENAME TO {to}");
    let postgres = rig.postgres.as_ref().expect("has one");
    postgres.execute(&rig.database, &sql).await;
}

#[tokio::test]
async fn a_table_that_is_gone_is_said_and_waited_for() {
    let rig = Plan::full().start().await;
    rename(&rig, "user_interactions", "mislaid").await;
    let line = rig
        .app
        .wait_for_log(SOON, "check schema, rights and disk")
        .await;
    assert!(line.contains("42P01"), "{line}");
    a_while(&rig).await;
    rename(&rig, "mislaid", "user_interactions").await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn a_table_that_is_gone_refuses_callers_who_wait() {
    let rig = Plan::database().start().await;
    rename(&rig, "user_interactions", "mislaid").await;
    rig.app
        .wait_for_log(SOON, "check schema, rights and disk")
        .await;
    rename(&rig, "mislaid", "user_interactions").await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

#[tokio::test]
async fn no_connection_to_spare() {
    let mut rig = Plan::full().own_postgres().start().await;
    let url = rig.postgres().url("postgres");
    // Those of Eclusa are ended, and others are quicker to take their places.
    let mut others = vec![connect(&url).await];
    rig.store_net().refuse();
    rig.store_net().reset();
    while let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await
    {
        tokio::spawn(connection);
        others.push(client);
    }
    rig.store_net().heal();
    rig.app.wait_for_log(SOON, "batch not written").await;
    a_while(&rig).await;
    drop(others);
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// Readers that ask for everything hold all connections of theirs; writers have their own.
#[tokio::test]
async fn a_pool_exhausted_by_readers_does_not_stop_the_writers() {
    let plan = Plan::database().set("store.acquire_timeout", "500ms");
    let rig = plan.set("store.read_connections", 1).start().await;
    let url = rig.app.url().to_owned();
    let readers: Vec<_> = (0..40)
        .map(|_| {
            let url = format!("{url}/v1/events?limit=1000");
            tokio::spawn(async move {
                for _ in 0..10 {
                    let response = reqwest::get(&url).await.unwrap();
                    let status = response.status().as_u16();
                    assert!(status == 200 || status == 503, "{status}");
                    response.bytes().await.unwrap();
                }
            })
        })
        .collect();
    rig.flows().await;
    for reader in readers {
        reader.await.unwrap();
    }
    rig.settle().await.assert_all_rows();
}

/// The third demand, at a sixth of its length.
#[tokio::test]
async fn postgres_away_is_not_noticed_by_any_client_in_full_mode() {
    let mut rig = Plan::full().own_postgres().start().await;
    rig.postgres().pause();
    rig.assert_taken_all_along().await;
    rig.postgres().kill9();
    rig.assert_taken_all_along().await;
    rig.postgres().start_again().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

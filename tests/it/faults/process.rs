//! Eclusa itself dies, or is told to stop, at the worst moments.

use super::rig::{Plan, Rig, SOON};
use crate::harness::eventually;

/// Dies at each point in turn, after some passes, and is started again.
async fn dies_at(rig: &mut Rig, points: &[&str]) {
    for point in points {
        rig.app.set_failpoint(point, "5:1:kill").await.unwrap();
        eventually(SOON, &format!("it dies at {point}"), async || {
            rig.app.has_exited().then_some(())
        })
        .await;
        rig.start_again().await;
        rig.flows().await;
    }
    rig.settle().await.assert_all_rows();
}

const DIRECT: &[&str] = &[
    "http_ingest.ingest",
    "http_ingest.flush",
    "batch_accumulator.push",
    "batch_accumulator.dispatch",
    "db_writer.write_batch",
    "db_writer.after_commit",
];

#[tokio::test]
async fn killed_at_each_point_of_the_full_mode() {
    let mut rig = Plan::full().start().await;
    dies_at(&mut rig, DIRECT).await;
}

#[tokio::test]
async fn killed_at_each_point_on_the_way_to_and_from_the_broker() {
    let mut rig = Plan::full().start().await;
    dies_at(
        &mut rig,
        &[
            "http_ingest.publish",
            "http_ingest.after_confirm",
            "amqp_consumer.push",
            "amqp_consumer.acknowledge",
        ],
    )
    .await;
}

#[tokio::test]
async fn killed_at_each_point_of_the_database_mode() {
    let mut rig = Plan::database().start().await;
    dies_at(&mut rig, DIRECT).await;
}

#[tokio::test]
async fn killed_at_each_point_of_the_embedded_mode() {
    let mut rig = Plan::embedded().start().await;
    dies_at(&mut rig, DIRECT).await;
}

#[tokio::test]
async fn killed_at_any_moment() {
    for plan in [Plan::full(), Plan::embedded()] {
        let mut rig = plan.start().await;
        for more in [1, 150, 47, 211, 5] {
            rig.load.taken_more(SOON, more).await;
            rig.app.kill9();
            rig.start_again().await;
        }
        rig.settle().await.assert_all_rows();
    }
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    for plan in [Plan::full(), Plan::database(), Plan::embedded()] {
        // A long wait, so that the batch at hand leaves because of the signal.
        let mut rig = plan.set("batch.max_wait", "30s").start().await;
        rig.app.sigterm();
        assert!(rig.app.wait_exit(SOON).await.success());
        rig.start_again().await;
        rig.flows().await;
        // Once more, so that what is left in the batch is written.
        rig.load.stop(SOON).await;
        rig.app.sigterm();
        assert!(rig.app.wait_exit(SOON).await.success());
        rig.start_again().await;
        rig.settle().await.assert_all_rows();
    }
}

#[tokio::test]
async fn sigterm_during_an_outage_ends_in_time_and_loses_nothing() {
    for plan in [Plan::full(), Plan::database()] {
        let plan = plan.own_postgres().set("shutdown.deadline", "2s");
        let mut rig = plan.start().await;
        rig.postgres().kill9();
        rig.app.wait_for_log(SOON, "batch not written").await;
        rig.app.sigterm();
        assert!(rig.app.wait_exit(SOON / 3).await.success());
        rig.postgres().start_again().await;
        rig.start_again().await;
        rig.flows().await;
        rig.settle().await.assert_all_rows();
    }
}

#[tokio::test]
async fn sigterm_three_times_ends_at_once_and_loses_nothing() {
    let plan = Plan::full().own_postgres();
    let plan = plan.set("shutdown.grace", "60s");
    let mut rig = plan.set("shutdown.deadline", "60s").start().await;
    rig.postgres().pause();
    rig.app.sigterm();
    rig.app.wait_for_log(SOON, "still serving").await;
    // The second ends the grace, the third does not wait for a database that hangs.
    rig.app.sigterm();
    rig.app.wait_for_log(SOON, "no longer consuming").await;
    rig.app.sigterm();
    rig.app.wait_exit(SOON / 3).await;
    rig.postgres().resume();
    rig.start_again().await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

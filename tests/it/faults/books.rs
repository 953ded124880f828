//! The accounting, which balances at every scrape, whatever goes wrong meanwhile.

use super::rig::{Plan, SOON};
use crate::harness::{Metrics, eventually};

const OUTCOMES: &[&str] = &[
    "published",
    "stored",
    "duplicate",
    "retried",
    "dead_lettered",
    "refused",
    "returned",
];

fn assert_balanced(metrics: &Metrics) {
    for path in ["ingest", "consume"] {
        let events = |outcome| {
            let labels = [("path", path), ("outcome", outcome)];
            metrics.sum("eclusa_accounted_events_total", &labels)
        };
        let in_flight = metrics.sum("eclusa_events_in_flight", &[("path", path)]);
        let settled: f64 = OUTCOMES.iter().map(|outcome| events(outcome)).sum();
        assert_eq!(events("taken"), settled + in_flight, "{path}");
    }
}

#[tokio::test]
async fn the_books_balance_at_every_scrape() {
    let mut rig = Plan::full().own_postgres().start().await;
    let points = [
        "http_ingest.publish",
        "amqp_consumer.push",
        "batch_accumulator.dispatch",
        "db_writer.write_batch",
        "db_writer.after_commit",
    ];
    let mut scrapes = 0;
    for point in points {
        rig.app.set_failpoint(point, "2:1:panic").await.unwrap();
        rig.postgres().kill9();
        rig.postgres().start_again().await;
        rig.store_net().reset();
        rig.broker_net().cut();
        let goal = rig.load.taken() + 300;
        eventually(SOON, "events are taken", async || {
            assert_balanced(&rig.app.metrics().await);
            scrapes += 1;
            (rig.load.taken() >= goal).then_some(())
        })
        .await;
    }
    assert!(scrapes >= points.len());
    rig.settle().await.assert_all_rows();
    assert_balanced(&rig.app.metrics().await);
}

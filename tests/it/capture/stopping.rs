//! SIGTERM: a capture goes on until its process drains, and holds it up no longer than its own work takes.

use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{App, AppBuilder, Direction, Postgres, Proxy, eventually};
use serde_json::json;
use std::time::Duration;

/// Of a drain; a process that waits for its end has not ended in time.
const DEADLINE: &str = "10m";
/// Much longer than an end takes, and much shorter than that.
const ENDED: Duration = Duration::from_secs(60);

fn patient(app: AppBuilder) -> AppBuilder {
    app.set("shutdown.deadline", DEADLINE)
}

async fn ends(app: &mut App) {
    app.sigterm();
    assert!(app.wait_exit(ENDED).await.success());
    let logs = app.logs();
    let is_drained = logs.iter().any(|line| line.contains("drained"));
    assert!(is_drained, "{logs:?}");
}

#[actix_rt::test]
async fn a_capture_that_waits_for_its_lease_or_was_stopped_ends_at_once() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut first = Shop::of(url.clone(), false, patient).await;
    first.until("running").await;
    let mut second = Shop::of(url, false, patient).await;
    second.until("waiting").await;
    ends(&mut second.app).await;
    assert_eq!(first.command("drop-slot", &json!({})).await, 200);
    first.until("stopped").await;
    ends(&mut first.app).await;
}

#[actix_rt::test]
async fn a_capture_without_its_database_ends_at_once() {
    let postgres = Postgres::shared().await;
    let net = Proxy::to(postgres.port()).await;
    let url = shop::tables(postgres).await;
    let captures = shop::capture(&net.url(&url));
    let mut shop = Shop::of(url, true, |app| patient(app).set("captures", captures)).await;
    shop.until("running").await;
    // The stream has nothing to read, and nothing answers.
    for way in [Direction::Up, Direction::Down] {
        net.drop_silently(way);
    }
    ends(&mut shop.app).await;
    // A connection is made, and nothing answers.
    shop.app.start_again().await;
    eventually(CAUGHT_UP, "it connects", async || {
        (net.open() > 0).then_some(())
    })
    .await;
    ends(&mut shop.app).await;
    net.heal();
    net.refuse();
    shop.app.start_again().await;
    shop.until("failing").await;
    ends(&mut shop.app).await;
}

#[actix_rt::test]
async fn a_capture_goes_on_through_the_grace_period_and_leaves_nothing_to_be_read_again() {
    let url = shop::tables(Postgres::shared().await).await;
    let grace = |app| patient(app).set("shutdown.grace", "10m");
    let mut shop = Shop::of(url, false, grace).await;
    shop.until("running").await;
    shop.app.sigterm();
    shop.app.wait_for_log(CAUGHT_UP, "still serving").await;
    let records = shop.caught_up().await;
    // A second signal ends the grace period.
    ends(&mut shop.app).await;
    shop.app.start_again().await;
    let again = shop.caught_up().await;
    assert_eq!(again.len(), records.len() + 1);
    let read = shop
        .app
        .metric_with("eclusa_capture_changes_total", &shop.label())
        .await;
    assert_eq!(read, 1.0, "what was captured before is read again");
}

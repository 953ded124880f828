//! What the readiness probe and the log say of captures that do not run.

use super::stock::{SOON_ENOUGH, Stock, name, settings};
use crate::harness::{App, Postgres};
use serde_json::json;

const LEFT: &str = "has left the settings";

async fn start() -> Stock {
    let url = Postgres::shared().await.database().await;
    Stock::fill(&url, 5).await;
    let stock = Stock::capture(&url, App::builder().postgres(&url)).await;
    stock.read().await;
    stock
}

#[actix_rt::test]
async fn a_capture_that_has_stopped_is_shown_and_leaves_the_process_ready() {
    let stock = start().await;
    assert_eq!(stock.ready().await, json!({ "status": "up" }));
    stock.command("drop-slot").await;
    stock.has_trouble("is stopped: its slot was dropped").await;
}

#[actix_rt::test]
async fn a_slot_whose_capture_has_left_the_settings_is_warned_of() {
    let mut stock = start().await;
    let captures = json!([settings(&stock.url)]);
    for (captures, warned) in [(json!([]), 1), (captures, 1), (json!([]), 1)] {
        stock.app.sigterm();
        stock.app.wait_exit(SOON_ENOUGH).await;
        let is_left = captures == json!([]);
        stock.app.rewrite_config("captures", captures);
        stock.app.start_again().await;
        let logs = stock.app.logs();
        let warnings: Vec<_> = logs.iter().filter(|line| line.contains(LEFT)).collect();
        assert_eq!(warnings.len(), warned, "{warnings:?}");
        let slot = format!("pg_drop_replication_slot('eclusa_{}')", name(&stock.url));
        assert!(warnings[0].contains(&slot), "{warnings:?}");
        if !is_left {
            stock.command("drop-slot").await;
            stock.has_trouble("dropped by command").await;
        }
    }
}

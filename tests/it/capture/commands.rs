//! Snapshots and slots of captures by the program, and commands to it.

use super::SOON;
use super::replay::{Replayed, assert_replayed};
use super::shop::{CAUGHT_UP, Shop};
use crate::harness::{connect, eventually};
use serde_json::{Value, json};

#[actix_rt::test]
async fn a_snapshot_comes_first_and_changes_follow() {
    let mut shop = Shop::start(false).await;
    let client = connect(&shop.url).await;
    client
        .batch_execute("UPDATE product SET name = 'x'")
        .await
        .unwrap();
    let records = shop.caught_up().await;
    assert_eq!(Replayed::of(&records).0["public.product"].len(), 1);
    let event = records.last().unwrap();
    assert_eq!(event["eventType"], "change.public.product");
    assert_eq!(event["source"], "capture");
    assert_eq!(event["userId"], Value::Null);
}

#[actix_rt::test]
async fn a_slot_that_was_dropped_stops_the_capture_until_a_new_snapshot() {
    let mut shop = Shop::start(false).await;
    shop.caught_up().await;
    shop.app.sigterm();
    shop.app.wait_exit(SOON).await;
    let client = connect(&shop.url).await;
    let slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()";
    client.batch_execute(slot).await.unwrap();
    // Missed by the capture.
    let missed =
        "INSERT INTO stock VALUES (1, 'missed', 1, NULL); UPDATE product SET name = 'missed'";
    client.batch_execute(missed).await.unwrap();
    shop.app.start_again().await;
    let view = shop.until("stopped").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(
        reason.contains("is missing") && reason.contains("resnapshot"),
        "{reason}"
    );
    let wrong = json!({ "tables": ["public.other"] });
    assert_eq!(shop.command("resnapshot", &wrong).await, 400);
    assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
    shop.until("running").await;
    let records = shop.caught_up().await;
    assert_replayed(&records, &shop.url).await;
}

#[actix_rt::test]
async fn one_table_is_read_again_alone_and_a_slot_is_dropped_by_command() {
    let mut shop = Shop::start(true).await;
    let client = connect(&shop.url).await;
    let rows = "INSERT INTO stock SELECT n, 'n', n, NULL FROM generate_series(1, 120) AS n";
    client.batch_execute(rows).await.unwrap();
    let before = shop.caught_up().await;
    let again = json!({ "tables": ["public.stock"] });
    assert_eq!(shop.command("resnapshot", &again).await, 200);
    let read = |records: &[Value]| {
        let of_stock = |one: &&Value| {
            one["eventData"]["op"] == "r" && one["eventData"]["table"] == "public.stock"
        };
        records.iter().filter(of_stock).count()
    };
    eventually(CAUGHT_UP, "its rows come again", async || {
        let records = shop.records().await;
        (read(&records) == read(&before) + 120 && records.len() == before.len() + 120).then_some(())
    })
    .await;
    assert_eq!(shop.command("drop-slot", &json!({})).await, 200);
    let view = shop.until("stopped").await;
    assert!(
        view["reason"].as_str().unwrap().contains("by command"),
        "{view}"
    );
    let left = "SELECT 1 FROM pg_replication_slots WHERE database = current_database() \
                UNION ALL SELECT 1 FROM pg_publication";
    assert!(client.query(left, &[]).await.unwrap().is_empty());
}

//! Columns that are added while a snapshot is read and the stream is behind.

use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, connect, eventually};
use serde_json::json;

#[actix_rt::test]
async fn a_column_that_the_stream_has_not_come_to_is_in_the_snapshot() {
    let url = shop::tables(Postgres::shared().await).await;
    shop::fill_stock(&url, 4000).await;
    let mut shop = Shop::of(url, true, |app| app).await;
    eventually(CAUGHT_UP, "it reads the table", async || {
        let label = shop.label();
        let read = shop
            .app
            .metric_with("eclusa_capture_snapshot_rows_total", &label);
        (read.await > 200.0).then_some(())
    })
    .await;
    shop.app.pause();
    shop.execute("ALTER TABLE stock ADD COLUMN note text").await;
    shop.execute("UPDATE stock SET note = 'x' || id").await;
    shop.app.resume();
    let records = shop.caught_up().await;
    let read = |op: &str, has_note: bool| {
        let found = records.iter().map(|record| &record["eventData"]);
        let found = found.filter(|record| record["op"] == op);
        found
            .filter(|record| record["note"].is_string() == has_note)
            .count()
    };
    assert!(
        read("r", false) > 200,
        "all was read before the pause, or none"
    );
    assert_eq!(read("u", true), 4000);
    assert_replayed(&records, &shop.url).await;
}

/// To a snapshot from before it the table would be empty.
#[actix_rt::test]
async fn a_change_that_rewrites_the_table_while_a_chunk_waits_for_it_loses_no_row() {
    let url = shop::tables(Postgres::shared().await).await;
    shop::fill_stock(&url, 40).await;
    let mut shop = Shop::of(url.clone(), true, |app| app).await;
    shop.caught_up().await;
    let writer = connect(&url).await;
    let rewrite = "BEGIN; ALTER TABLE stock ADD COLUMN note text DEFAULT md5(random()::text)";
    writer.batch_execute(rewrite).await.unwrap();
    assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE relation = 'stock'::regclass AND NOT granted";
    eventually(CAUGHT_UP, "a chunk waits for the table", async || {
        let row = writer.query_one(waiting, &[]).await.unwrap();
        (row.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    writer.batch_execute("COMMIT").await.unwrap();
    let records = shop.caught_up().await;
    let records = records.iter().map(|record| &record["eventData"]);
    let read = records.filter(|record| record["op"] == "r" && record["note"].is_string());
    assert_eq!(read.count(), 40);
}

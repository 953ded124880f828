//! Columns that are added while a snapshot is read and the stream is behind.

use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, eventually};

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

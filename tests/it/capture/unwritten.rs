//! Changes that cannot be written yet: neither a position nor a snapshot counts them.

use super::SOON;
use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, connect, eventually};
use eclusa::capture::Lsn;
use serde_json::{Value, json};

/// Probes of a store that cannot be written, with a pause of 200 ms after the first one and a longer one after each. It
/// takes less to store a position twice.
const PROBES: usize = 5;

fn failed_probes(shop: &Shop) -> usize {
    let logs = shop.app.logs();
    let failed = logs.iter().filter(|line| line.contains("probe failed"));
    failed.count()
}

async fn view(shop: &Shop) -> Value {
    shop.shown().await.expect("the store answers")
}

/// The log is locked, and the table of the positions is not.
#[actix_rt::test]
async fn neither_a_position_nor_a_snapshot_counts_what_is_not_written() {
    // What other tests write to a server moves its slots, too.
    let postgres = Postgres::start().await;
    let url = shop::tables(&postgres).await;
    shop::fill_stock(&url, 120).await;
    let mut shop = Shop::of(url.clone(), false, |app| {
        app.set("store.statement_timeout", "300ms")
    })
    .await;
    shop.caught_up().await;
    let writer = connect(&url).await;
    for is_snapshot in [false, true] {
        let lock = connect(&url).await;
        let hold = "BEGIN; LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE";
        lock.batch_execute(hold).await.unwrap();
        if is_snapshot {
            assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
        } else {
            let change = "BEGIN; UPDATE stock SET quantity = 7 WHERE id % 2 = 0; DELETE FROM stock WHERE id % 3 = 0";
            writer.batch_execute(change).await.unwrap();
        }
        // Before the commit of the changes.
        let place = "SELECT pg_current_wal_insert_lsn()::text";
        let end: String = writer.query_one(place, &[]).await.unwrap().get(0);
        let end: Lsn = end.parse().unwrap();
        writer.batch_execute("COMMIT").await.unwrap();
        let before = failed_probes(&shop);
        eventually(CAUGHT_UP, "writes fail", async || {
            (failed_probes(&shop) >= before + PROBES).then_some(())
        })
        .await;
        let view = view(&shop).await;
        if is_snapshot {
            let tables = view["tables"].as_array().unwrap();
            let stock = tables.iter().find(|table| table["table"] == "public.stock");
            let stock = stock.unwrap_or_else(|| panic!("{view}"));
            assert_eq!(stock["doneAt"], Value::Null, "{view}");
            assert_eq!(stock["rows"], 0, "{view}");
        } else {
            let position: Lsn = view["position"].as_str().unwrap().parse().unwrap();
            assert!(position <= end, "{view}");
        }
        shop.app.kill9();
        lock.batch_execute("COMMIT").await.unwrap();
        shop.app.start_again().await;
        let records = shop.caught_up().await;
        assert_replayed(&records, &url).await;
    }
    eventually(SOON, "its slot is the only one", async || {
        (shop.slots().await == 1).then_some(())
    })
    .await;
}

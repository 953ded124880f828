//! Updates of keys while a snapshot is being read, of rows whose large values are not in the log.

use super::stock::{SOON_ENOUGH, Stock, number_read, replay};
use crate::harness::{App, Postgres, connect, eventually};
use std::collections::BTreeMap;

const ROWS: u32 = 1_000;
/// Rows that get other keys while the table is read.
const MOVED: u32 = 150;

/// Waits until the snapshot has read so many rows.
async fn has_read(stock: &Stock, rows: u64) {
    eventually(SOON_ENOUGH, "some rows are read", async || {
        let table = stock.shown().await?;
        (table["rows"].as_u64()? >= rows).then_some(())
    })
    .await;
}

/// The newest state of the capture, in the store.
async fn state(stock: &Stock) -> String {
    let client = connect(&stock.url).await;
    let newest = "SELECT state::text FROM captures ORDER BY n DESC LIMIT 1";
    client.query_one(newest, &[]).await.unwrap().get(0)
}

/// Has the table locked from the end of this move on, so that no chunk reads the row before it is known to have moved.
async fn move_and_lock(stock: &Stock, id: u32) -> tokio_postgres::Client {
    let (mover, locker) = (connect(&stock.url).await, connect(&stock.url).await);
    let update = format!("BEGIN; UPDATE stock SET id = -id WHERE id = {id}");
    mover.batch_execute(&update).await.unwrap();
    let locking = tokio::spawn(async move {
        let lock = "BEGIN; LOCK TABLE stock IN ACCESS EXCLUSIVE MODE";
        locker.batch_execute(lock).await.unwrap();
        locker
    });
    eventually(SOON_ENOUGH, "the lock waits", async || {
        let waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' \
                     AND relation = 'stock'::regclass";
        let waiting = mover.query(waits, &[]).await.unwrap();
        (!waiting.is_empty()).then_some(())
    })
    .await;
    mover.batch_execute("COMMIT").await.unwrap();
    locking.await.unwrap()
}

#[actix_rt::test]
async fn a_row_that_moves_to_where_all_was_read_is_read_again() {
    let url = Postgres::shared().await.database().await;
    Stock::fill(&url, ROWS).await;
    let app = App::builder().postgres(&url);
    let mut stock = Stock::capture(&url, app).await;

    // The row is to be read again, and the position is behind its change, when the process dies.
    has_read(&stock, 60).await;
    let lock = move_and_lock(&stock, ROWS).await;
    let key = format!("[[\"-{ROWS}\"]]");
    eventually(SOON_ENOUGH, "the key is stored", async || {
        let state = state(&stock).await.replace(' ', "");
        state.contains(&key).then_some(())
    })
    .await;
    stock.app.kill9();
    lock.batch_execute("ROLLBACK").await.unwrap();
    stock.app.start_again().await;

    let client = connect(&url).await;
    let mut moved = 0;
    while moved < MOVED {
        let id = ROWS - 1 - moved;
        let both = format!(
            "UPDATE stock SET id = -id WHERE id = {id}; UPDATE stock SET name = 'n{id}' WHERE id = {moved}"
        );
        client.batch_execute(&both).await.unwrap();
        moved += 1;
        if moved % 30 == 0 && stock.shown().await.unwrap()["doneAt"].is_null() {
            has_read(&stock, u64::from(2 * moved)).await;
        }
    }
    stock.read().await;
    let records = stock.caught_up().await;
    let (replayed, source) = (replay(&records), stock.rows().await);
    let wrong: BTreeMap<_, _> = source
        .iter()
        .filter(|(id, row)| replayed.get(*id) != Some(*row))
        .map(|(id, row)| (id, (&row.0, replayed.get(id).map(|row| &row.0))))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(replayed.len(), source.len());
    // It did not begin anew: each row once, each moved one once more, and what the crash had read again.
    let read = number_read(&records);
    let most = (ROWS + MOVED) as usize + 100;
    assert!(
        (ROWS as usize..=most).contains(&read),
        "{read} rows were read"
    );
}

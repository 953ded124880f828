//! A commit that is in the log and not visible yet, since it waits for a standby.

use super::stock::{SOON_ENOUGH, Stock, replay};
use crate::harness::{App, Postgres, connect, eventually, temp_dir};
use serde_json::Value;

#[actix_rt::test]
async fn a_snapshot_after_a_restart_waits_for_a_commit_that_a_standby_holds_back() {
    let postgres = Postgres::start().await;
    let url = postgres.database().await;
    Stock::fill(&url, 10).await;
    let folder = temp_dir("store-");
    let app = App::builder()
        .embedded(folder.path())
        .set("log.filter", "info,eclusa::capture=debug");
    let mut stock = Stock::capture(&url, app).await;
    stock.read().await;
    let client = connect(&url).await;
    for command in [
        "ALTER SYSTEM SET synchronous_standby_names = 'absent'",
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(command).await.unwrap();
    }
    eventually(
        SOON_ENOUGH,
        "the server replicates synchronously",
        async || {
            let client = connect(&url).await;
            let row = client
                .query_one("SHOW synchronous_standby_names", &[])
                .await;
            (row.unwrap().get::<_, &str>(0) == "absent").then_some(())
        },
    )
    .await;
    // Commits wait as soon as the checkpointer has taken the setting over, which it does before it begins this.
    client.batch_execute("CHECKPOINT").await.unwrap();
    let writer = connect(&url).await;
    let held_back = tokio::spawn(async move {
        let update = "UPDATE stock SET name = 'after', body = 'after' WHERE id = 1";
        writer.batch_execute(update).await.unwrap();
    });
    let is_after = |record: &&Value| record["name"] == "after";
    eventually(SOON_ENOUGH, "the change is captured", async || {
        let records = stock.records().await;
        records.iter().find(is_after).map(|_| ())
    })
    .await;
    // Its place is stored.
    stock.app.sigterm();
    stock.app.wait_exit(SOON_ENOUGH).await;
    stock.app.start_again().await;
    stock.command("resnapshot").await;
    eventually(SOON_ENOUGH, "a chunk is refused", async || {
        let refused = |line: &String| line.contains("was not visible");
        stock.app.logs().iter().any(refused).then_some(())
    })
    .await;
    for command in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(command).await.unwrap();
    }
    held_back.await.unwrap();
    eventually(SOON_ENOUGH, "the table is read again", async || {
        let records = stock.records().await;
        let read = records.iter().filter(|record| record["op"] == "r").count();
        (read >= 20).then_some(())
    })
    .await;
    assert_eq!(replay(&stock.records().await), stock.rows().await);
}

//! Slots of the same name: two installations that capture from one server.

use super::stock::{SOON_ENOUGH, Stock, name, settings};
use crate::harness::{App, Postgres, connect, eventually, temp_dir};
use serde_json::json;

#[actix_rt::test]
async fn a_slot_of_another_installation_is_neither_used_nor_dropped() {
    let url = Postgres::shared().await.database().await;
    Stock::fill(&url, 5).await;
    let folders = [temp_dir("store-"), temp_dir("store-")];
    let [one, other] = [0, 1].map(|at| App::builder().embedded(folders[at].path()));
    let mut one = Stock::capture(&url, one).await;
    one.read().await;

    // Another installation has the same name for its capture, until it names the slot.
    let mut other = Stock::capture(&url, other).await;
    other.has_trouble("is not known as this capture's").await;
    other.app.sigterm();
    other.app.wait_exit(SOON_ENOUGH).await;
    let mut named = settings(&url);
    let slot = format!("eclusa_{}", name(&url));
    named["slot"] = json!(format!("{slot}_other"));
    other.app.rewrite_config("captures", json!([named]));
    other.app.start_again().await;
    other.read().await;
    assert_eq!(one.ready().await["status"], "up");

    // The slot is lost, and another one takes its name.
    one.app.sigterm();
    one.app.wait_exit(SOON_ENOUGH).await;
    let client = connect(&url).await;
    for sql in [
        format!("SELECT pg_drop_replication_slot('{slot}')"),
        "UPDATE stock SET name = 'missed'".to_owned(),
        format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
    let place = async || {
        let place =
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_one(place, &[&slot]).await.unwrap();
        row.get::<_, String>(0)
    };
    let made = place().await;
    one.app.start_again().await;
    one.has_trouble("is stopped: the slot").await;
    one.command("resnapshot").await;
    one.has_trouble("is not known as this capture's").await;
    assert_eq!(place().await, made);
    one.command("drop-slot").await;
    one.has_trouble("dropped by command").await;
    assert_eq!(place().await, made);

    // When nothing has the name, the capture begins again.
    let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
    client.batch_execute(&drop).await.unwrap();
    one.command("resnapshot").await;
    eventually(SOON_ENOUGH, "the capture runs", async || {
        let captures = one.ready().await;
        (captures["status"] == "up").then_some(())
    })
    .await;
    one.read().await;
}

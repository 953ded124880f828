//! A process that dies, or an actor that panics, at each step of a capture: nothing is lost, and nothing is there twice.

use super::SOON;
use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use super::writers::Writers;
use crate::harness::{Postgres, Proxy, eventually};
use serde_json::json;

/// Between a group of changes and their writer; between rows of a snapshot and the position that covers them; between
/// a position and its confirmation to the slot.
const POINTS: [&str; 3] = [
    "capture.push",
    "capture.chunk_stored",
    "capture.position_stored",
];

async fn restarts(shop: &Shop) -> f64 {
    let actor = [("actor", "change_capture")];
    shop.app
        .metric_with("eclusa_actor_restarts_total", &actor)
        .await
}

async fn dies(shop: &mut Shop, point: &str) {
    eventually(CAUGHT_UP, &format!("it dies at {point}"), async || {
        shop.app.has_exited().then_some(())
    })
    .await;
}

async fn each_step_may_be_the_last(embedded: bool) {
    let url = shop::tables(Postgres::shared().await).await;
    shop::fill_stock(&url, 300).await;
    let mut writers = Writers::start(&url, 3, 1);
    let mut shop = Shop::of(url, embedded, |app| app).await;
    for point in POINTS {
        writers.more(20).await;
        let before = restarts(&shop).await;
        shop.app.set_failpoint(point, "1:1:panic").await.unwrap();
        // So that there are rows of a snapshot.
        assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
        eventually(CAUGHT_UP, &format!("it panics at {point}"), async || {
            (restarts(&shop).await > before).then_some(())
        })
        .await;
        writers.more(20).await;
        // The answers may be lost with the process.
        let _ = shop.app.set_failpoint(point, "2:1:kill").await;
        let again = format!("{}/resnapshot", shop.path());
        let _ = shop.app.try_post(&again, "application/json", "{}").await;
        dies(&mut shop, point).await;
        shop.app.start_again().await;
    }
    writers.stop().await;
    let records = shop.caught_up().await;
    assert_replayed(&records, &shop.url).await;
    assert_eq!(shop.slots().await, 1);
}

#[actix_rt::test]
async fn each_step_may_be_the_last_with_an_embedded_store() {
    each_step_may_be_the_last(true).await;
}

#[actix_rt::test]
async fn each_step_may_be_the_last_with_a_store_in_the_captured_database() {
    each_step_may_be_the_last(false).await;
}

/// The slot is there, and the store does not know its place yet.
#[actix_rt::test]
async fn a_slot_whose_maker_died_is_made_anew() {
    let postgres = Postgres::shared().await;
    let net = Proxy::to(postgres.port()).await;
    net.refuse();
    let url = shop::tables(postgres).await;
    shop::fill_stock(&url, 120).await;
    let captures = shop::capture(&net.url(&url));
    let mut shop = Shop::of(url, true, |app| app.set("captures", captures)).await;
    let point = "capture.slot_made";
    shop.app.set_failpoint(point, "0:1:kill").await.unwrap();
    net.heal();
    dies(&mut shop, point).await;
    assert_eq!(shop.slots().await, 1);
    shop.execute(
        "UPDATE stock SET name = 'meanwhile' WHERE id % 2 = 0; DELETE FROM stock WHERE id % 3 = 0",
    )
    .await;
    shop.app.start_again().await;
    let records = shop.caught_up().await;
    assert_replayed(&records, &shop.url).await;
    assert_eq!(shop.slots().await, 1);

    // The same when a capture that has stopped begins again.
    assert_eq!(shop.command("drop-slot", &json!({})).await, 200);
    shop.until("stopped").await;
    assert_eq!(shop.slots().await, 0);
    shop.execute("UPDATE stock SET name = 'missed' WHERE id % 2 = 0")
        .await;
    shop.app.set_failpoint(point, "0:1:panic").await.unwrap();
    assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
    eventually(SOON, "it panics", async || {
        (restarts(&shop).await > 0.0).then_some(())
    })
    .await;
    let records = shop.caught_up().await;
    assert_replayed(&records, &shop.url).await;
    assert_eq!(shop.slots().await, 1);
}

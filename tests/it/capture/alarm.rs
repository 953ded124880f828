//! The alarm of a slot that keeps much log, or is about to be lost.

use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, connect, eventually};
use serde_json::{Value, json};

/// A capture whose slot may keep one mebibyte.
async fn start(url: String) -> Shop {
    let mut captures = shop::capture(&url);
    captures[0]["max_lag"] = json!("1 MiB");
    Shop::of(url, true, |app| app.set("captures", captures)).await
}

async fn metric(shop: &Shop, name: &str) -> f64 {
    shop.app.metric_with(name, &shop.label()).await
}

/// Waits until the capture shows an alarm with these words.
async fn alarm(shop: &Shop, words: &str) -> Value {
    eventually(CAUGHT_UP, &format!("an alarm: {words}"), async || {
        let view = shop.shown().await?;
        view["alarm"].as_str()?.contains(words).then_some(view)
    })
    .await
}

/// Waits until there is no alarm any more; the server moves a slot when it notes which transactions run.
async fn no_alarm(shop: &Shop) -> Value {
    eventually(CAUGHT_UP, "the alarm is over", async || {
        shop.execute("CHECKPOINT").await;
        let view = shop.shown().await?;
        (view["alarm"].is_null() && !view["slotState"].is_null()).then_some(view)
    })
    .await
}

#[actix_rt::test]
async fn a_slot_that_is_held_back_raises_the_alarm_before_it_is_lost() {
    let mut postgres = Postgres::start().await;
    postgres.stop().await;
    let settings = ["max_slot_wal_keep_size=48MB", "max_wal_size=1GB"];
    postgres.start_again_with(&settings).await;
    let url = shop::tables(&postgres).await;
    let mut shop = start(url.clone()).await;
    shop.caught_up().await;
    let view = no_alarm(&shop).await;
    assert_eq!(view["slotState"]["walStatus"], "reserved");
    assert_eq!(metric(&shop, "eclusa_capture_slot_safe").await, 1.0);
    // A slot keeps the log from the beginning of the oldest transaction on.
    let open = connect(&url).await;
    let begin = "BEGIN; INSERT INTO sale VALUES (1, 'open', 1, '')";
    open.batch_execute(begin).await.unwrap();
    // The rest of a segment of 16 MiB is passed over.
    const SEGMENT: &str =
        "SELECT pg_logical_emit_message(false, 'other', ''); SELECT pg_switch_wal()";
    for _ in 0..2 {
        shop.execute(SEGMENT).await;
    }
    let view = alarm(&shop, "more than max_lag (1048576)").await;
    let kept = view["slotState"]["keptBytes"].as_f64().unwrap();
    assert!(kept > f64::from(1 << 20), "{view}");
    assert_eq!(metric(&shop, "eclusa_capture_slot_safe").await, 1.0);
    assert!(metric(&shop, "eclusa_capture_kept_bytes").await >= kept);
    let said = shop.app.wait_for_log(CAUGHT_UP, "falls behind").await;
    assert!(
        said.contains("ERROR") || said.contains("\"error\""),
        "{said}"
    );
    open.batch_execute("COMMIT").await.unwrap();
    no_alarm(&shop).await;

    open.batch_execute(&begin.replace("(1,", "(2,"))
        .await
        .unwrap();
    for _ in 0..6 {
        shop.execute(SEGMENT).await;
    }
    let view = alarm(&shop, "about to remove").await;
    assert_eq!(view["slotState"]["walStatus"], "unreserved");
    assert_eq!(metric(&shop, "eclusa_capture_slot_safe").await, 0.0);
    // The open transaction holds the slot back, so the checkpoint removes log that the slot needs.
    open.batch_execute("CHECKPOINT").await.unwrap();
    open.batch_execute("COMMIT").await.unwrap();
    let view = shop.until("stopped").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("has removed"), "{reason}");
    assert_eq!(shop.command("resnapshot", &json!({})).await, 200);
    shop.until("running").await;
    let records = shop.caught_up().await;
    super::replay::assert_replayed(&records, &url).await;
    no_alarm(&shop).await;
    assert_eq!(metric(&shop, "eclusa_capture_slot_safe").await, 1.0);
}

/// The slot of a capture that cannot run keeps log all the same.
#[actix_rt::test]
async fn a_capture_that_fails_raises_the_alarm_too() {
    // What other tests write to a server moves its slots, too.
    let postgres = Postgres::start().await;
    let url = shop::tables(&postgres).await;
    let mut shop = start(url).await;
    shop.caught_up().await;
    shop.app.kill9();
    shop.execute(
        "ALTER TABLE sale DROP CONSTRAINT sale_pkey; CREATE TABLE other (n int, t text); \
         INSERT INTO other SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 4000) AS n",
    )
    .await;
    shop.app.start_again().await;
    let view = shop.until("failing").await;
    let reason = view["reason"].as_str().unwrap();
    assert!(reason.contains("primary key"), "{reason}");
    alarm(&shop, "more than max_lag").await;
    shop.execute("ALTER TABLE sale ADD PRIMARY KEY (id)").await;
    shop.caught_up().await;
    no_alarm(&shop).await;
}

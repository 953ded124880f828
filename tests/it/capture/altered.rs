//! Tables and publications that are altered behind a capture's back: nothing is recorded under a wrong name, no gap stays
//! unnoticed, and no rule is passed over.

use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, eventually};
use serde_json::{Value, json};

/// The capture as soon as it says something of these words.
async fn says(shop: &Shop, words: &str) -> Value {
    eventually(CAUGHT_UP, &format!("it says: {words}"), async || {
        let view = shop.shown().await?;
        view["reason"].as_str()?.contains(words).then_some(view)
    })
    .await
}

async fn requested_at(shop: &Shop) -> Option<String> {
    let view = shop.shown().await?;
    let mut tables = view["tables"].as_array()?.iter();
    let stock = tables.find(|table| table["table"] == "public.stock")?;
    Some(stock["requestedAt"].as_str()?.to_owned())
}

/// Waits until the table `stock` is read again.
async fn read_again(shop: &mut Shop, before: &str) -> Vec<Value> {
    eventually(CAUGHT_UP, "the table is to be read again", async || {
        (requested_at(shop).await? != before).then_some(())
    })
    .await;
    shop.caught_up().await
}

#[actix_rt::test]
async fn a_table_in_the_place_of_another_is_read_and_the_other_is_not_recorded_any_more() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut shop = Shop::of(url.clone(), true, |app| app).await;
    shop.caught_up().await;
    let before = requested_at(&shop).await.unwrap();
    // One message is one transaction.
    shop.execute(
        "ALTER TABLE stock RENAME TO stock_before; \
         CREATE TABLE stock (LIKE stock_before INCLUDING ALL); \
         INSERT INTO stock VALUES (1, 'one', 1, ''), (2, 'two', 2, '')",
    )
    .await;
    shop.execute(
        "ALTER TABLE stock_before DROP COLUMN name; INSERT INTO stock_before VALUES (9, 9, 'body')",
    )
    .await;
    let records = read_again(&mut shop, &before).await;
    assert_replayed(&records, &url).await;
    // Without another in its place it is missing. What changes it under another name is read when it is back.
    let before = requested_at(&shop).await.unwrap();
    shop.execute("ALTER TABLE stock RENAME TO stock_now").await;
    let view = says(&shop, "the table public.stock does not exist").await;
    assert_eq!(view["state"], "failing");
    shop.execute("INSERT INTO stock_now VALUES (3, 'three', 3, '')")
        .await;
    shop.execute("ALTER TABLE stock_now RENAME TO stock").await;
    let records = read_again(&mut shop, &before).await;
    assert_replayed(&records, &url).await;
}

#[actix_rt::test]
async fn a_table_that_was_out_of_the_publication_is_read_again() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut shop = Shop::of(url.clone(), true, |app| app).await;
    shop.caught_up().await;
    let publication = shop.shown().await.unwrap()["publication"].clone();
    let publication = publication.as_str().unwrap();
    for (id, out, back) in [
        (1, "DROP TABLE stock", Some("ADD TABLE stock")),
        (2, "DROP TABLE stock", None),
        (3, "SET (publish = 'delete')", None),
        (4, "SET TABLE product, sale, stock (id, name)", None),
    ] {
        let before = requested_at(&shop).await.unwrap();
        shop.execute(&format!("ALTER PUBLICATION {publication} {out}"))
            .await;
        shop.execute(&format!("INSERT INTO stock VALUES ({id}, 'missed', 1, '')"))
            .await;
        if let Some(back) = back {
            shop.execute(&format!("ALTER PUBLICATION {publication} {back}"))
                .await;
        }
        let records = read_again(&mut shop, &before).await;
        assert_replayed(&records, &url).await;
    }
    // The same while nothing captures.
    let before = requested_at(&shop).await.unwrap();
    shop.app.kill9();
    shop.execute(&format!("ALTER PUBLICATION {publication} DROP TABLE stock"))
        .await;
    shop.execute("INSERT INTO stock VALUES (5, 'missed', 1, '')")
        .await;
    shop.execute(&format!("ALTER PUBLICATION {publication} ADD TABLE stock"))
        .await;
    shop.app.start_again().await;
    let records = read_again(&mut shop, &before).await;
    assert_replayed(&records, &url).await;
}

#[actix_rt::test]
async fn a_column_with_a_rule_that_gets_another_name_is_not_recorded() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut captures = shop::capture(&url);
    captures[0]["columns"] = json!({ "exclude": ["public.stock.body"] });
    let shop = Shop::of(url, true, |app| app.set("captures", captures)).await;
    shop.until("running").await;
    shop.all_read().await;
    shop.execute("INSERT INTO stock VALUES (1, 'one', 1, 'secret')")
        .await;
    shop.execute(
        "ALTER TABLE stock RENAME COLUMN body TO text; UPDATE stock SET quantity = 2; \
         INSERT INTO stock VALUES (2, 'two', 1, 'secret')",
    )
    .await;
    let view = says(&shop, "no column \"body\"").await;
    assert_eq!(view["state"], "failing");
    let records = shop.records().await;
    assert!(
        !records
            .iter()
            .any(|record| record.to_string().contains("secret")),
        "{records:?}"
    );
}

/// A rule that names no column is found before anything is recorded, also where there is no snapshot.
#[actix_rt::test]
async fn a_rule_without_its_column_is_refused_at_the_start() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut captures = shop::capture(&url);
    captures[0]["columns"] = json!({ "mask": ["public.stock.bdoy"] });
    captures[0]["snapshot"] = json!(false);
    let shop = Shop::of(url, true, |app| app.set("captures", captures)).await;
    says(&shop, "no column \"bdoy\"").await;
    assert_eq!(shop.slots().await, 0);
}

#[actix_rt::test]
async fn a_replica_identity_without_the_key_is_refused_while_it_runs() {
    let url = shop::tables(Postgres::shared().await).await;
    let mut shop = Shop::of(url, true, |app| app).await;
    shop.caught_up().await;
    shop.execute(
        "CREATE UNIQUE INDEX by_name ON stock (name); \
         ALTER TABLE stock REPLICA IDENTITY USING INDEX by_name; INSERT INTO stock VALUES (1, 'one', 1, '')",
    )
    .await;
    let view = says(&shop, "REPLICA IDENTITY").await;
    assert_eq!(view["state"], "failing");
}

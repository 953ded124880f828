//! Servers and databases that cannot be captured as they are, or let a capture wait: it says so.

use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{Postgres, connect, eventually};
use serde_json::{Value, json};
use std::process::Command;

async fn says(shop: &Shop, state: &str, words: &str) -> Value {
    eventually(CAUGHT_UP, &format!("{state}: {words}"), async || {
        let view = shop.shown().await?;
        let is_said = view["reason"].as_str()?.contains(words);
        (is_said && view["state"] == state).then_some(view)
    })
    .await
}

#[actix_rt::test]
async fn a_server_that_was_restored_to_an_earlier_state_stops_the_capture() {
    let mut postgres = Postgres::start().await;
    let url = shop::tables(&postgres).await;
    let mut shop = Shop::of(url, true, |app| app).await;
    shop.caught_up().await;
    postgres.stop().await;
    let (data, copy) = (postgres.data(), postgres.data().with_extension("copy"));
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&copy).status();
    assert!(copied.unwrap().success());
    postgres.start_again().await;
    shop.caught_up().await;
    // More than what a start writes by itself.
    shop::fill_stock(&shop.url, 2_000).await;
    let records = shop.caught_up().await;
    postgres.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    postgres.start_again().await;
    says(&shop, "stopped", "restored to a place before").await;
    assert_eq!(shop.records().await.len(), records.len());
}

#[actix_rt::test]
async fn a_database_in_no_known_encoding_is_refused() {
    let postgres = Postgres::shared().await;
    let url = postgres.database().await;
    let name = url.rsplit('/').next().unwrap();
    for sql in [
        format!("DROP DATABASE {name}"),
        format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        ),
    ] {
        postgres.execute(&postgres.url("postgres"), &sql).await;
    }
    for table in shop::TABLES {
        postgres
            .execute(
                &url,
                &format!("CREATE TABLE {table} (id bigint PRIMARY KEY, name text)"),
            )
            .await;
    }
    let shop = Shop::of(url, true, |app| app).await;
    says(&shop, "failing", "SQL_ASCII").await;
}

#[actix_rt::test]
async fn a_slot_that_cannot_be_made_yet_says_what_it_waits_for() {
    let postgres = Postgres::start().await;
    let url = shop::tables(&postgres).await;
    let open = connect(&url).await;
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    let mut shop = Shop::of(url.clone(), true, |app| app).await;
    says(&shop, "waiting", "transactions that are open").await;
    open.batch_execute("COMMIT").await.unwrap();
    let records = shop.caught_up().await;
    assert_replayed(&records, &url).await;
}

/// Rows that policies hide would be missing in the snapshot, and not in the stream.
#[actix_rt::test]
async fn a_snapshot_that_policies_would_cut_waits_and_holds_up_no_other_table() {
    let postgres = Postgres::shared().await;
    let url = shop::tables(postgres).await;
    shop::fill_stock(&url, 10).await;
    let name = url.rsplit('/').next().unwrap();
    let role = format!("owner_{name}");
    let mut setup = format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {name} TO {role}; \
         ALTER TABLE product ENABLE ROW LEVEL SECURITY; ALTER TABLE product FORCE ROW LEVEL SECURITY; \
         INSERT INTO product VALUES (1, 'hidden', 1, '');"
    );
    for table in shop::TABLES {
        setup += &format!("ALTER TABLE {table} OWNER TO {role};");
    }
    postgres.execute(&url, &setup).await;
    let captures = shop::capture(&url.replace("postgres@", &format!("{role}@")));
    let mut captures = captures;
    captures[0]["name"] = json!(name);
    let mut shop = Shop::of(url.clone(), true, |app| app.set("captures", captures)).await;
    says(&shop, "running", "the snapshot of public.product waits").await;
    eventually(CAUGHT_UP, "the other tables are read", async || {
        let view = shop.shown().await?;
        let tables = view["tables"].as_array()?.clone();
        let read = tables.iter().filter(|table| !table["doneAt"].is_null());
        (read.count() == 2).then_some(())
    })
    .await;
    postgres
        .execute(&url, "ALTER TABLE product NO FORCE ROW LEVEL SECURITY")
        .await;
    let records = shop.caught_up().await;
    assert_replayed(&records, &url).await;
    let view = shop.until("running").await;
    assert_eq!(view["reason"], Value::Null);
}

/// The order of the key is that of its index, and not that of texts.
#[actix_rt::test]
async fn a_key_of_an_extensions_type_is_read_in_its_own_order() {
    let postgres = Postgres::shared().await;
    let url = shop::tables(postgres).await;
    let create = "CREATE EXTENSION citext; CREATE TABLE word (w citext PRIMARY KEY); \
                  INSERT INTO word SELECT CASE n % 2 WHEN 0 THEN chr(97 + n) ELSE chr(65 + n) END \
                  FROM generate_series(0, 25) AS n";
    postgres.execute(&url, create).await;
    let mut captures = shop::capture(&url);
    captures[0]["tables"] = json!(["public.word"]);
    captures[0]["chunk_rows"] = json!(2);
    let shop = Shop::of(url, true, |app| app.set("captures", captures)).await;
    shop.until("running").await;
    shop.all_read().await;
    assert_eq!(shop.shown().await.unwrap()["tables"][0]["rows"], 26);
    let records = eventually(CAUGHT_UP, "all are recorded", async || {
        let records = shop.records().await;
        (records.len() >= 26).then_some(records)
    })
    .await;
    assert_eq!(records.len(), 26);
}

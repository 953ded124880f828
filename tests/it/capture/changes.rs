//! The flat records of inserts, updates, deletes and truncates.

use super::{Bench, record};
use eclusa::capture::ColumnRules;
use eclusa::capture::record::RecordEnvelope;
use eclusa::event::{Source, id};
use serde_json::json;

const PRODUCT: &str = "CREATE TABLE product (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2), body text)";

#[tokio::test]
async fn each_change_of_a_row_is_one_record() {
    let bench = Bench::start(PRODUCT, &["public.product"]).await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    bench
        .execute(
            "INSERT INTO public.product VALUES (1, 'cup', 3.50, NULL), (2, 'jug', NULL, ''); \
             UPDATE public.product SET price = 4.00 WHERE id = 1; \
             UPDATE public.product SET id = 3 WHERE id = 2; \
             DELETE FROM public.product WHERE id = 1; TRUNCATE public.product",
        )
        .await;
    let table = "public.product";
    assert_eq!(
        capture.records(6).await,
        [
            json!({"op": "c", "table": table, "key": {"id": 1}, "id": 1, "name": "cup", "price": 3.50, "body": null}),
            json!({"op": "c", "table": table, "key": {"id": 2}, "id": 2, "name": "jug", "price": null, "body": ""}),
            json!({"op": "u", "table": table, "key": {"id": 1}, "id": 1, "name": "cup", "price": 4.00, "body": null}),
            json!({"op": "u", "table": table, "key": {"id": 3}, "oldKey": {"id": 2}, "id": 3, "name": "jug",
                   "price": null, "body": ""}),
            json!({"op": "d", "table": table, "key": {"id": 1}, "id": 1}),
            json!({"op": "t", "table": table}),
        ]
    );
}

#[tokio::test]
async fn the_event_is_the_same_each_time_it_is_read() {
    let bench = Bench::start(PRODUCT, &["public.product"]).await;
    bench
        .execute(
            "INSERT INTO public.product SELECT n, 'cup', n FROM generate_series(1, 3) n; \
             COPY public.product (id, name) FROM PROGRAM 'printf \"7\\tjug\\n8\\tjar\\n9\\tpot\\n\"'",
        )
        .await;
    let mut read = Vec::new();
    for _ in 0..2 {
        let mut capture = bench.capture(RecordEnvelope::Flat).await;
        let events = capture.events(6).await;
        // Nothing of the last transaction is confirmed.
        capture.stream.close().await;
        for event in &events {
            assert_eq!(event.event_type, "change.public.product");
            assert_eq!(&*event.producer, "shop");
            assert_eq!(event.source, Source::Capture);
            assert_eq!((&event.user_id, &event.session_id), (&None, &None));
            let time = event.timestamp.unwrap();
            assert_eq!(id::bucket(&event.event_id), time.date_naive());
        }
        // All but the time of receipt.
        let known = events.iter().map(|event| {
            (
                event.event_id,
                event.timestamp,
                event.event_data.get().to_owned(),
            )
        });
        read.push(known.collect::<Vec<_>>());
    }
    let mut ids: Vec<_> = read[1].iter().map(|(id, ..)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(
        ids.len(),
        6,
        "rows that one record of the log holds have ids of their own"
    );
    assert_eq!(read[0], read[1]);
}

#[tokio::test]
async fn a_large_value_that_was_not_touched_is_named() {
    let bench = Bench::start(PRODUCT, &["public.product"]).await;
    bench
        .execute(
            "INSERT INTO public.product SELECT 1, 'cup', 1, string_agg(md5(n::text), '') FROM generate_series(1, 500) n",
        )
        .await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    let inserted = capture.records(1).await.remove(0);
    assert_eq!(inserted["body"].as_str().unwrap().len(), 16_000);
    bench
        .execute(
            "UPDATE public.product SET price = 2; \
             UPDATE public.product SET id = 5; \
             ALTER TABLE public.product REPLICA IDENTITY FULL; \
             UPDATE public.product SET price = 3; DELETE FROM public.product",
        )
        .await;
    let records = capture.records(4).await;
    assert_eq!(
        records[0],
        json!({"op": "u", "table": "public.product", "key": {"id": 1}, "unchanged": ["body"], "id": 1, "name": "cup",
               "price": 2.00})
    );
    assert_eq!(records[1]["oldKey"], json!({"id": 1}));
    assert_eq!(records[1]["unchanged"], json!(["body"]));
    // With the whole old row in the log, the value is known.
    assert_eq!(records[2]["body"], inserted["body"]);
    assert_eq!(records[2].get("unchanged"), None);
    assert_eq!(records[2]["before"]["price"], json!(2.00));
    assert_eq!(records[2]["before"]["body"], inserted["body"]);
    assert_eq!(records[2].get("oldKey"), None);
    assert_eq!(records[3]["op"], "d");
    assert_eq!(records[3]["before"]["body"], inserted["body"]);
    assert_eq!(
        records[3].get("body"),
        None,
        "a deleted row has its key at the top"
    );
}

#[tokio::test]
async fn a_composite_key_keeps_its_order_and_names_beside_reserved_ones() {
    let schema =
        "CREATE TABLE pair (op text, b int, a int, key jsonb, \"_op\" int, PRIMARY KEY (a, b))";
    let bench = Bench::start(schema, &["public.pair"]).await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    bench
        .execute(
            "INSERT INTO public.pair VALUES ('x', 1, 2, '{\"n\": 1.10}', 5); \
             UPDATE public.pair SET b = 3; DELETE FROM public.pair",
        )
        .await;
    let events = capture.events(3).await;
    let text = events[0].event_data.get();
    assert!(text.contains(r#""key":{"a":2,"b":1}"#), "{text}");
    let table = "public.pair";
    assert_eq!(
        events.iter().map(record).collect::<Vec<_>>(),
        [
            json!({"op": "c", "table": table, "key": {"a": 2, "b": 1}, "_op": "x", "b": 1, "a": 2,
                   "_key": {"n": 1.10}, "__op": 5}),
            json!({"op": "u", "table": table, "key": {"a": 2, "b": 3}, "oldKey": {"a": 2, "b": 1}, "_op": "x", "b": 3,
                   "a": 2, "_key": {"n": 1.10}, "__op": 5}),
            json!({"op": "d", "table": table, "key": {"a": 2, "b": 3}, "a": 2, "b": 3}),
        ]
    );
}

#[tokio::test]
async fn excluded_and_masked_columns_are_never_written() {
    let schema = "CREATE TABLE person (id int PRIMARY KEY, name text, born date, secret text, note text); \
                  ALTER TABLE person REPLICA IDENTITY FULL";
    let bench = Bench::start(schema, &["public.person"]).await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rules = ColumnRules {
        exclude: names(&["secret"]),
        mask: names(&["name", "born", "note"]),
    };
    capture.rules.insert("person".to_owned(), rules);
    bench
        .execute(
            "INSERT INTO public.person VALUES (1, 'Ana', '2000-02-03', 'hunter2', NULL); \
             UPDATE public.person SET secret = 'hunter3'; DELETE FROM public.person",
        )
        .await;
    let events = capture.events(3).await;
    for event in &events {
        let text = event.event_data.get();
        for value in ["Ana", "2000", "hunter", "secret"] {
            assert!(!text.contains(value), "{text}");
        }
    }
    let shown = json!({"id": 1, "name": "****", "born": null, "note": null});
    assert_eq!(record(&events[1])["before"], shown);
    assert_eq!(record(&events[0])["name"], "****");
}

#[tokio::test]
async fn the_columns_are_those_of_the_time_of_the_change() {
    let bench = Bench::start(PRODUCT, &["public.product"]).await;
    bench
        .execute(
            "INSERT INTO public.product VALUES (1, 'cup', 1, NULL); \
             ALTER TABLE public.product ADD COLUMN weight int DEFAULT 3; \
             UPDATE public.product SET name = 'jug'; \
             ALTER TABLE public.product DROP COLUMN body; \
             ALTER TABLE public.product RENAME COLUMN id TO number; \
             UPDATE public.product SET name = 'pot'",
        )
        .await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    capture.tables = vec![bench.table("public.product").await];
    let table = "public.product";
    assert_eq!(
        capture.records(3).await,
        [
            json!({"op": "c", "table": table, "key": {"id": 1}, "id": 1, "name": "cup", "price": 1.00, "body": null}),
            json!({"op": "u", "table": table, "key": {"id": 1}, "id": 1, "name": "jug", "price": 1.00, "body": null,
                   "weight": 3}),
            json!({"op": "u", "table": table, "key": {"number": 1}, "number": 1, "name": "pot", "price": 1.00,
                   "weight": 3}),
        ]
    );
}

#[tokio::test]
async fn a_partitioned_table_is_one_table() {
    let schema = "CREATE TABLE sale (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
                  CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); \
                  CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')";
    let bench = Bench::start(schema, &["public.sale"]).await;
    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    bench
        .execute(
            "INSERT INTO public.sale VALUES (1, '2026-01-05'), (2, '2026-02-05'); \
             UPDATE public.sale SET day = '2026-02-07' WHERE id = 1",
        )
        .await;
    // A row that moves to another partition is deleted and inserted, by PostgreSQL itself.
    let records = capture.records(4).await;
    let operations: Vec<_> = records.iter().map(|record| &record["op"]).collect();
    assert_eq!(operations, ["c", "c", "d", "c"]);
    assert!(
        records
            .iter()
            .all(|record| record["table"] == "public.sale")
    );
}

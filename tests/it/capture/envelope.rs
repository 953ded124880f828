//! Debezium's envelope.

use super::Bench;
use eclusa::capture::record::RecordEnvelope;
use serde_json::{Value, json};

#[tokio::test]
async fn the_members_are_those_of_debezium() {
    let schema = "CREATE TABLE item (id int PRIMARY KEY, name text, price numeric, data jsonb, raw bytea, \
                  at timestamptz, day date, body text)";
    let bench = Bench::start(schema, &["public.item"]).await;
    let mut capture = bench.capture(RecordEnvelope::Debezium).await;
    bench
        .execute(
            "INSERT INTO public.item SELECT 1, 'cup', 1.10, '{\"a\":1}', '\\x00ff', '2026-01-02 03:04:05.5+00', \
             '2026-01-02', string_agg(md5(n::text), '') FROM generate_series(1, 500) n; \
             UPDATE public.item SET name = 'jug'; UPDATE public.item SET id = 2; DELETE FROM public.item; \
             TRUNCATE public.item",
        )
        .await;
    let events = capture.events(6).await;
    let records: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event.event_data.get()).unwrap())
        .collect();
    let created = &records[0];
    let micros = events[0].timestamp.unwrap().timestamp_micros();
    let body = created["after"]["body"].clone();
    assert_eq!(
        created["after"],
        json!({"id": 1, "name": "cup", "price": "1.10", "data": "{\"a\": 1}", "raw": "AP8=",
               "at": "2026-01-02T03:04:05.5Z", "day": "2026-01-02Z", "body": body})
    );
    for times in [created, &created["source"]] {
        assert_eq!(times["ts_us"], micros);
        assert_eq!(times["ts_ms"], micros / 1000);
        assert_eq!(times["ts_ns"], micros * 1000);
    }
    let source = &created["source"];
    for (member, value) in [
        ("connector", json!("postgresql")),
        ("name", json!("shop")),
        ("db", json!("shop")),
        ("schema", json!("public")),
        ("table", json!("item")),
        ("snapshot", json!("false")),
        ("xmin", Value::Null),
    ] {
        assert_eq!(source[member], value, "{member}");
    }
    assert!(source["txId"].is_u64() && source["lsn"].is_u64());
    let sequence: Vec<String> = serde_json::from_str(source["sequence"].as_str().unwrap()).unwrap();
    assert_eq!(sequence[1], source["lsn"].to_string());
    assert_eq!(
        (&created["before"], &created["transaction"]),
        (&Value::Null, &Value::Null)
    );

    let operations: Vec<_> = records.iter().map(|record| &record["op"]).collect();
    // A new key is a deletion and a creation.
    assert_eq!(operations, ["c", "u", "d", "c", "d", "t"]);
    assert_eq!(records[1]["after"]["body"], "__debezium_unavailable_value");
    assert_eq!(records[2]["before"]["id"], 1);
    assert_eq!(records[2]["before"]["name"], Value::Null);
    assert_eq!(records[2]["after"], Value::Null);
    assert_eq!(records[3]["after"]["id"], 2);
    assert_eq!(records[4]["before"]["id"], 2);
    let mut ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

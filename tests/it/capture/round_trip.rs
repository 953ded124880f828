//! Values of all types: from a table into records, and from the records into an equal table.

use super::Bench;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eclusa::capture::record::RecordEnvelope;
use eclusa::capture::{ColumnRules, Lsn, TableShape};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tokio_postgres::SimpleQueryMessage;

const ROWS: usize = 120;

/// A type, and the texts of random values of it.
fn types() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let number = "-?[0-9]{1,20}\\.[0-9]{0,12}".boxed();
    let short = "-?[0-9]{1,6}\\.[0-9]{0,5}".boxed();
    let text = "[^\0]{0,12}".boxed();
    let word = "[a-z{}\",\\\\ NULnul]{0,8}".boxed();
    let hex = "([0-9a-f]{2}){0,20}"
        .prop_map(|hex| format!("\\x{hex}"))
        .boxed();
    let day = "(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
    let clock = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?";
    let zone = "[+-](0[0-9]|1[0-4])(:30)?";
    let date = pattern(&format!("[1-9][0-9]{{3,4}}-{day}"));
    let before = pattern(&format!("0[0-9]{{2}}[1-9]-{day} BC"));
    let date = prop_oneof![8 => date, 1 => before, 1 => one_of(&["infinity", "-infinity"])].boxed();
    let stamp = pattern(&format!("[1-9][0-9]{{3,4}}-{day} {clock}"));
    let early = pattern(&format!("0[0-9]{{2}}[1-9]-{day} {clock} BC"));
    let stamp =
        prop_oneof![8 => stamp, 1 => early, 1 => one_of(&["infinity", "-infinity"])].boxed();
    let zoned = pattern(&format!("[1-9][0-9]{{3}}-{day} {clock}{zone}"));
    let json = json_text();
    let special = one_of(&["NaN", "Infinity", "-Infinity", "0", "-0"]);
    vec![
        ("bool", one_of(&["t", "f"])),
        ("int2", any::<i16>().prop_map(|n| n.to_string()).boxed()),
        ("int4", any::<i32>().prop_map(|n| n.to_string()).boxed()),
        ("int8", any::<i64>().prop_map(|n| n.to_string()).boxed()),
        ("oid", any::<u32>().prop_map(|n| n.to_string()).boxed()),
        ("numeric", prop_oneof![5 => number.clone(), 1 => special.clone()].boxed()),
        ("numeric(20, 5)", short.clone()),
        ("float4", prop_oneof![any::<f32>().prop_map(|n| n.to_string()), special.clone()].boxed()),
        ("float8", prop_oneof![any::<f64>().prop_map(|n| n.to_string()), special].boxed()),
        ("text", text.clone()),
        ("varchar(20)", text.clone()),
        ("char(9)", "[a-z ]{0,9}".boxed()),
        ("name", "[a-zé\"]{0,12}".boxed()),
        ("citext", text.clone()),
        ("date", date.clone()),
        ("time", pattern(clock)),
        ("timetz", pattern(&format!("{clock}{zone}"))),
        ("timestamp", stamp.clone()),
        ("timestamp(2)", stamp.clone()),
        ("timestamptz", zoned.clone()),
        ("interval", "-?[0-9]{1,3} years -?[0-9]{1,2} mons -?[0-9]{1,4} days -?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]\\.[0-9]{1,6}".boxed()),
        ("bytea", hex.clone()),
        ("uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".boxed()),
        ("json", json.clone()),
        ("jsonb", json.clone()),
        ("mood", one_of(&["good", "so \"so\"", "b,ad"])),
        ("positive", "[1-9][0-9]{0,5}".boxed()),
        ("int4range", "\\[[1-9],[1-9][0-9]\\)".boxed()),
        ("inet", "10\\.[0-9]\\.[0-9]\\.[0-9](/2[0-9])?".boxed()),
        ("macaddr", "([0-9a-f]{2}:){5}[0-9a-f]{2}".boxed()),
        ("pair", "\\([0-9]{1,4},[a-z]{0,4}\\)".boxed()),
        ("money", "-?[0-9]{1,9}\\.[0-9]{2}".boxed()),
        ("bit(5)", "[01]{5}".boxed()),
        ("varbit", "[01]{0,20}".boxed()),
        ("point", "\\([0-9],-[0-9]\\.5\\)".boxed()),
        ("tsvector", "[a-z]{1,4}( [a-z]{1,4}){0,3}".boxed()),
        ("xml", "<a>[a-z ]{0,9}</a>".boxed()),
        ("hstore", "[a-z]=>[a-z0-9]{1,5}(, [a-z]{2}=>NULL)?".boxed()),
        ("regclass", one_of(&["pg_catalog.pg_class", "public.source"])),
        ("int4[]", list(any::<i32>().prop_map(|n| n.to_string()).boxed())),
        ("text[]", list(word.clone())),
        ("list", list(word)),
        ("numeric[]", list(number)),
        ("timestamp[]", list(stamp)),
        ("timestamptz[]", list(zoned)),
        ("date[]", list(date)),
        ("bytea[]", list(hex)),
        ("bool[]", list(one_of(&["t", "f"]))),
        // In an array the null of SQL and that of JSON look alike.
        ("json[]", list(json.prop_filter("null", |text| text != "null").boxed())),
        ("mood[]", list(one_of(&["good", "so \"so\"", "b,ad"]))),
        ("int4[][]", one_of(&["{{1,2},{3,NULL}}", "{}", "{{{1}},{{2}}}", "[0:1]={7,8}", "[2:2][3:4]={{1,2}}"])),
        ("box[]", one_of(&["{(1,1),(0,0);(2,2),(0,0)}", "{NULL}", "{}"])),
    ]
}

fn pattern(pattern: &str) -> BoxedStrategy<String> {
    proptest::string::string_regex(pattern).unwrap().boxed()
}

fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(texts).prop_map(str::to_owned).boxed()
}

/// An array of up to four of these, some of them null.
fn list(element: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let elements = prop::collection::vec(prop::option::weighted(0.8, element), 0..4);
    elements.prop_map(|elements| braces(&elements)).boxed()
}

fn braces(elements: &[Option<String>]) -> String {
    let quoted = |text: &String| text.replace('\\', "\\\\").replace('"', "\\\"");
    let element = |element: &Option<String>| match element {
        Some(text) => format!("\"{}\"", quoted(text)),
        None => "NULL".to_owned(),
    };
    let elements: Vec<String> = elements.iter().map(element).collect();
    format!("{{{}}}", elements.join(","))
}

fn json_text() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        one_of(&[
            "null",
            "true",
            "1.50",
            "-0.1",
            "1e400",
            "123456789012345678901234567890.10"
        ]),
        "[a-z\"\\\\é ]{0,6}".prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            inner.prop_map(|item| format!("{{\"a\": {item}, \"b\":[]}}")),
        ]
    })
    .boxed()
}

/// What PostgreSQL reads from a value of a record.
fn literal(kind: &str, value: &RawValue) -> Option<String> {
    let text = value.get();
    if text == "null" && !kind.starts_with("json") {
        return None;
    }
    if let Some(element) = kind
        .strip_suffix("[]")
        .or((kind == "list").then_some("text"))
        && let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text)
    {
        let element = element.trim_end_matches("[]");
        // Dimensions stay braces without quotes.
        let nested = elements.iter().any(|item| item.get().starts_with('[')) && element == "int4";
        if nested {
            return Some(
                text.replace('[', "{")
                    .replace(']', "}")
                    .replace("null", "NULL"),
            );
        }
        let elements: Vec<_> = elements
            .iter()
            .map(|item| literal_element(element, item))
            .collect();
        let joined = braces(&elements);
        let is_box = element == "box";
        return Some(if is_box {
            joined.replace("\",\"", "\";\"")
        } else {
            joined
        });
    }
    if kind.starts_with("json") {
        return Some(text.to_owned());
    }
    let string: Option<String> = serde_json::from_str(text).ok();
    match (string, kind) {
        (Some(string), "bytea") => Some(format!(
            "\\x{}",
            hex::encode(STANDARD.decode(string).unwrap())
        )),
        (Some(string), _) => Some(string),
        (None, _) => Some(text.to_owned()),
    }
}

fn literal_element(kind: &str, value: &RawValue) -> Option<String> {
    // In an array of JSON, null is that of the array.
    if value.get() == "null" {
        None
    } else {
        literal(kind, value)
    }
}

fn quoted(value: Option<&String>) -> String {
    match value {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".to_owned(),
    }
}

#[tokio::test]
async fn records_make_an_equal_table() {
    let types = types();
    let columns: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(at, (kind, _))| format!("c{at} {kind}"))
        .collect();
    let schema = format!(
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('good', 'so \"so\"', 'b,ad'); \
         CREATE TYPE pair AS (n int, t text); CREATE DOMAIN positive AS int CHECK (VALUE > 0); \
         CREATE DOMAIN list AS text[]; CREATE TABLE source (id int PRIMARY KEY, {0}); \
         CREATE TABLE streamed (LIKE source); CREATE TABLE snapshot (LIKE source)",
        columns.join(", ")
    );
    let bench = Bench::start(&schema, &["public.source"]).await;
    // The writer's session has settings of its own.
    let writer = crate::harness::connect(&bench.url).await;
    writer
        .batch_execute(
            "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'postgres_verbose'; SET timezone = 'Asia/Kathmandu'; \
             SET bytea_output = 'escape'; SET extra_float_digits = -3; SET datestyle = 'ISO'",
        )
        .await
        .unwrap();
    let mut runner = TestRunner::deterministic();
    for id in 0..ROWS {
        let mut values = vec![id.to_string()];
        for (_, strategy) in &types {
            let value = strategy.new_tree(&mut runner).unwrap().current();
            let is_null = any::<u8>().new_tree(&mut runner).unwrap().current() < 20;
            values.push(quoted((!is_null).then_some(&value)));
        }
        let sql = format!("INSERT INTO public.source VALUES ({})", values.join(", "));
        let done = writer.batch_execute(&sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    let mut capture = bench.capture(RecordEnvelope::Flat).await;
    let streamed = capture.events(ROWS).await;
    let shape = TableShape::of_table(&bench.tables[0], &ColumnRules::default()).unwrap();
    let select = format!(
        "SELECT {} FROM public.source ORDER BY id",
        shape.select_list()
    );
    let mut read = Vec::new();
    for message in bench.client.simple_query(&select).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            let tuple = shape.tuple(&row);
            let point = (Lsn(9), streamed[0].timestamp.unwrap());
            read.push(
                capture
                    .recorder
                    .row(&shape, "first", point, &tuple)
                    .unwrap(),
            );
        }
    }
    assert_eq!(read.len(), ROWS);
    let refill = crate::harness::connect(&bench.url).await;
    refill.batch_execute("SET timezone = 'UTC'").await.unwrap();
    for (table, events) in [("streamed", &streamed), ("snapshot", &read)] {
        for event in events {
            let record: BTreeMap<String, &RawValue> =
                serde_json::from_str(event.event_data.get()).unwrap();
            let mut values = vec![record["id"].get().to_owned()];
            for (at, (kind, _)) in types.iter().enumerate() {
                let value = record[&format!("c{at}")];
                // A null of SQL and a null of JSON look alike in a record.
                let value = literal(kind, value).filter(|text| text != "null");
                values.push(quoted(value.as_ref()));
            }
            let sql = format!("INSERT INTO public.{table} VALUES ({})", values.join(", "));
            let done = refill.batch_execute(&sql).await;
            done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        for (at, (kind, _)) in types.iter().enumerate() {
            let sql = format!(
                "SELECT a.id, a.c{at}::text, b.c{at}::text FROM public.source a JOIN public.{table} b USING (id) \
                 WHERE nullif(a.c{at}::text, 'null') IS DISTINCT FROM b.c{at}::text LIMIT 1"
            );
            let rows = refill.query(&sql, &[]).await.unwrap();
            if let Some(row) = rows.first() {
                let texts: (Option<String>, Option<String>) = (row.get(1), row.get(2));
                panic!("{kind} in {table}: {texts:?}");
            }
        }
    }
}

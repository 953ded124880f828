//! Bytes from outside, at random and from a kept corpus: no parser panics, nothing is lost between
//! "taken" and "refused", and what is taken can be stored by both stores.

use crate::harness::Postgres;
use eclusa::broker::contents::DecodeOptions;
use eclusa::broker::message;
use eclusa::config::Sources;
use eclusa::config::broker::MissingId;
use eclusa::event::item;
use eclusa::event::item::{DataRules, ItemLimits, Rules};
use eclusa::event::{Event, Rows, Source, frame, id};
use eclusa::http::body;
use eclusa::http::body::Shape;
use eclusa::store::postgres as pg;
use eclusa::store::postgres::{PostgresOptions, PostgresStore};
use eclusa::store::sqlite as lite;
use eclusa::store::sqlite::{SqliteOptions, SqliteStore};
use eclusa::store::{EventStore, RowOutcome};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::sync::Arc;

const LIMITS: ItemLimits = ItemLimits {
    max_depth: 16,
    max_field_bytes: 256,
    accept_days: 400,
    data: DataRules::NONE,
};

/// JSON texts, many of them at the edges of what stores take, some of them broken.
fn json_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        ("-?[0-9]{1,40}", 0..3usize, any::<i32>()).prop_map(
            |(digits, form, exponent)| match form {
                0 => digits,
                1 => format!("{digits}.{}", exponent.unsigned_abs()),
                _ => format!("{digits}e{exponent}"),
            }
        ),
        (-140_000..140_000i32).prop_map(|exponent| format!("1.5e{exponent}")),
    ];
    let text = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}){0,6}\"",
        "\"[ -~&&[^\"\\\\]]{0,20}\"",
    ];
    let leaf = prop_oneof![
        number,
        text,
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("NaN".to_owned()),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-c]{1,2}", inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn item_text() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "id",
        "userId",
        "eventType",
        "sessionId",
        "timestamp",
        "other",
    ]);
    (
        json_text(),
        prop::collection::vec((field, json_text()), 0..4),
    )
        .prop_map(|(data, extra)| {
            let mut members = vec![format!("\"eventData\":{{\"d\":{data}}}")];
            if !extra.iter().any(|(name, _)| *name == "userId") {
                members.push("\"userId\":\"u\"".to_owned());
            }
            if !extra.iter().any(|(name, _)| *name == "eventType") {
                members.push("\"eventType\":\"t\"".to_owned());
            }
            members.extend(
                extra
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{value}")),
            );
            format!("{{{}}}", members.join(","))
        })
}

fn event(text: &str) -> Option<Event> {
    let fields = item::parse(text, &LIMITS, Rules::AMQP).ok()?;
    let now = item::now();
    Some(fields.into_event(id::fresh(), None, "p".into(), Source::Amqp, now))
}

fn rulebook() -> DecodeOptions {
    DecodeOptions {
        limits: LIMITS,
        max_event_bytes: None,
        max_items: 1_000,
        producer: "p".into(),
        missing_id: MissingId::Random,
        again: None,
    }
}

fn check_message(bytes: &[u8]) {
    let mut headers = FieldTable::default();
    headers.insert(frame::VERSION_HEADER.into(), AMQPValue::LongLongInt(1));
    for properties in [
        BasicProperties::default(),
        BasicProperties::default().with_headers(headers),
    ] {
        let contents = message::read(bytes, &properties, &rulebook());
        assert!(
            !contents.events.is_empty() || !contents.bad.is_empty(),
            "a message that is neither stored nor put aside is lost"
        );
        assert!(contents.bad.iter().all(|bad| bad.cause.as_str() != "panic"));
    }
}

fn check_body(bytes: &[u8]) {
    for shape in [Shape::Json, Shape::Lines] {
        if let Ok(items) = body::items(bytes, shape, 1_000) {
            for item in items.items {
                // Either outcome is fine; a panic is not.
                let _ = item::check(item, &LIMITS, Rules::HTTP);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_crash_a_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_body(&bytes);
        check_message(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Sources::from_text(&text).load();
    }

    #[test]
    fn no_json_crashes_a_parser(text in item_text(), cut in any::<prop::sample::Index>()) {
        check_body(text.as_bytes());
        check_message(text.as_bytes());
        let envelope = format!("{{\"pattern\":\"p\",\"data\":[{text}]}}");
        check_message(envelope.as_bytes());
        check_message(&envelope.as_bytes()[..cut.index(envelope.len())]);
    }

    #[test]
    fn no_settings_crash_their_reader(key in "[a-z_.]{0,20}", value in json_text()) {
        let _ = Sources::from_text(&format!("{key} = {value}")).load();
        let _ = Sources::from_text(&format!("batch.max_wait = {value}")).load();
    }
}

#[test]
fn the_corpus_crashes_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        check_body(&bytes);
        check_message(&bytes);
        let _ = Sources::from_text(&String::from_utf8_lossy(&bytes)).load();
        files += 1;
    }
    assert!(files >= 8, "the corpus is gone");
}

/// Whatever the edge takes, the store takes: no batch fails later on what could have been a 400.
async fn everything_taken_is_stored(store: &dyn EventStore) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = item_text();
    let mut events = Vec::new();
    let mut refused = 0;
    while events.len() < 1_500 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        match event(&text) {
            Some(event) => events.push(event),
            None => refused += 1,
        }
    }
    assert!(refused > 50, "the texts are not hostile enough: {refused}");
    for chunk in events.chunks(100) {
        let outcomes = store.write(Rows::all(Arc::new(chunk.to_vec()))).await;
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => {
                for event in chunk {
                    let alone = Rows::all(Arc::new(vec![event.clone()]));
                    if let Err(error) = store.write(alone).await {
                        panic!("taken, but not stored: {event:?}: {error}");
                    }
                }
                panic!("{error}");
            }
        };
        assert!(
            outcomes
                .iter()
                .all(|outcome| *outcome == RowOutcome::Stored)
        );
        let first = &chunk[0];
        let stored = store.get(first.event_id).await.unwrap().unwrap();
        let conflicts = eclusa::store::content::conflicts(first, &stored);
        assert!(!conflicts, "{first:?} came back as {stored:?}");
    }
}

#[tokio::test]
async fn what_the_edge_takes_postgres_stores() {
    let options = PostgresOptions::new(Postgres::shared().await.database().await);
    pg::migrate(&options).await.unwrap();
    let store = PostgresStore::connect(&options).await.unwrap();
    everything_taken_is_stored(&store).await;
}

#[tokio::test]
async fn what_the_edge_takes_sqlite_stores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eclusa.db");
    lite::migrate(&path).await.unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(&path)).await.unwrap();
    everything_taken_is_stored(&store).await;
}

/// The ids of an array's items are made of the message's id: with the derived id of another message as
/// its own, a message would occupy the ids of that one's items.
#[test]
fn no_message_can_occupy_the_ids_of_another_ones_items() {
    let ids = |message_id: &str| -> Vec<_> {
        let properties = BasicProperties::default().with_message_id(message_id.into());
        let body = br#"[{"eventType":"t"},{"eventType":"t"}]"#;
        let contents = message::read(body, &properties, &rulebook());
        contents.events.iter().map(|event| event.event_id).collect()
    };
    let producer = &rulebook().producer;
    let squatter = id::of_producer(producer, "order-1001").to_string();
    assert_eq!(ids("order-1001").len(), 2);
    assert_eq!(ids("order-1001"), ids("order-1001"));
    assert!(
        ids(&squatter)
            .iter()
            .all(|id| !ids("order-1001").contains(id))
    );
}

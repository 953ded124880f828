//! Values that an event cannot hold, and rows that are too large.

use super::{Bench, Capture, record};
use crate::harness::peak_memory_of;
use eclusa::capture::Refused;
use eclusa::capture::record::RecordEnvelope;
use eclusa::capture::value::{ValueKind, ValueStyle, ValueWriter};
use proptest::prelude::*;
use serde_json::{Value, json};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, j json, body text)";

async fn flat(bench: &Bench) -> Capture {
    bench.capture(RecordEnvelope::Flat).await
}

#[tokio::test]
async fn a_value_that_the_log_cannot_hold_is_refused_with_its_key() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut capture = flat(&bench).await;
    bench
        .execute(
            "INSERT INTO public.t VALUES (1, '{\"a\": \"\\u0000\"}'), (2, '1e200000'), (3, '{\"a\":1,\"a\":2}'), \
             (4, '[1.50, 12345678901234567890123]')",
        )
        .await;
    for (id, words) in [(1, "U+0000"), (2, "number"), (3, "twice")] {
        let refused = capture.refused().await;
        assert_eq!(refused.event_type, "change.public.t");
        let mut data: Value = serde_json::from_str(refused.data.get()).unwrap();
        assert_eq!(data["lsn"], refused.lsn.to_string());
        assert_eq!(data["ts_ms"], refused.time.timestamp_millis());
        let data = data.as_object_mut().unwrap();
        data.retain(|name, _| !["lsn", "ts_ms"].contains(&name.as_str()));
        assert_eq!(
            Value::from(data.clone()),
            json!({"op": "c", "table": "public.t", "key": {"id": id}})
        );
        assert!(
            refused.reason.contains(words) && refused.reason.contains("\"j\""),
            "{}",
            refused.reason
        );
    }
    let event = capture.events(1).await.remove(0);
    let text = event.event_data.get();
    assert!(
        text.contains(r#""j":[1.50, 12345678901234567890123]"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_row_that_is_too_large_is_refused_and_the_next_one_is_not() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut capture = flat(&bench).await;
    capture.recorder.max_bytes = Some(1000);
    bench
        .execute("INSERT INTO public.t VALUES (1, NULL, repeat('secret', 300)), (2, NULL, 'x')")
        .await;
    let refused = capture.refused().await;
    assert!(
        refused.reason.contains("the limit is 1000"),
        "{}",
        refused.reason
    );
    assert!(!format!("{refused:?}").contains("secret"));
    capture.events(1).await;
}

/// The array that PostgreSQL writes for texts.
fn array(elements: &[Option<String>]) -> String {
    let element = |element: &Option<String>| match element {
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        None => "NULL".to_owned(),
    };
    let elements: Vec<String> = elements.iter().map(element).collect();
    format!("{{{}}}", elements.join(","))
}

proptest! {
    #[test]
    fn any_text_is_a_string_of_json(text in any::<String>()) {
        let writer = ValueWriter { style: ValueStyle::Plain, max_depth: 8 };
        let mut out = Vec::new();
        writer.write(&ValueKind::Text, &text, &mut out).unwrap();
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn any_texts_are_an_array_of_json(texts in prop::collection::vec(any::<Option<String>>(), 0..6)) {
        let writer = ValueWriter { style: ValueStyle::Plain, max_depth: 8 };
        let kind = ValueKind::Array { element: Box::new(ValueKind::Text), delimiter: b',' };
        let mut out = Vec::new();
        writer.write(&kind, &array(&texts), &mut out).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Vec<Option<String>>>(&out).unwrap(), texts);
    }

    #[test]
    fn nothing_the_server_could_send_panics(text in "[{}\"\\\\,a\\[\\]=: 0-9tfNn-]{0,24}") {
        let writer = ValueWriter { style: ValueStyle::Debezium, max_depth: 8 };
        let kinds = [
            ValueKind::Boolean, ValueKind::Numeric, ValueKind::Date, ValueKind::TimeTz, ValueKind::Timestamp,
            ValueKind::Bytes, ValueKind::Array { element: Box::new(ValueKind::Integer), delimiter: b',' },
        ];
        for kind in kinds {
            let _ = writer.write(&kind, &text, &mut Vec::new());
        }
    }
}

#[tokio::test]
async fn a_gigantic_row_is_refused_without_being_read() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut capture = flat(&bench).await;
    let me = i32::try_from(std::process::id()).unwrap();
    let before = peak_memory_of(me).unwrap();
    bench
        .execute(
            "INSERT INTO public.t VALUES (1, '[7]', repeat('0123456789', 20000000)), (2, '[8]', 'x'); \
             ALTER TABLE public.t REPLICA IDENTITY FULL; UPDATE public.t SET id = 3 WHERE id = 1; \
             DELETE FROM public.t WHERE id = 3",
        )
        .await;
    let key = |refused: &Refused| {
        let data: Value = serde_json::from_str(refused.data.get()).unwrap();
        data["key"]["id"].clone()
    };
    let refused = capture.refused().await;
    assert_eq!(key(&refused), 1);
    assert!(
        refused.reason.contains("200000000 bytes"),
        "{}",
        refused.reason
    );
    assert_eq!(record(&capture.events(1).await[0])["body"], "x");
    // The old row has the value twice: before and after.
    for id in [3, 3] {
        assert_eq!(key(&capture.refused().await), id);
    }
    let grown = peak_memory_of(me).unwrap().saturating_sub(before);
    assert!(grown < 150 << 20, "{grown} bytes");
}

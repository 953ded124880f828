//! Reads the events in a dead letter's body.

use crate::broker::contents::{Contents, DecodeOptions, Redecode};
use crate::broker::dead_letter;
use crate::broker::message;
use crate::config::Settings;
use crate::store::dead_letters::DeadLetter;
use std::sync::Arc;

/// Reads a dead letter's body under the current settings, which may differ from those it failed
/// under. Each reading gives the same ids.
pub fn read_again(letter: &DeadLetter, settings: &Settings) -> Contents {
    let item = letter.headers.get(dead_letter::ITEM);
    let again = Redecode {
        letter: letter.id,
        item: item
            .and_then(serde_json::Value::as_u64)
            .and_then(|item| usize::try_from(item).ok()),
        at: letter.created_at,
    };
    let rules = DecodeOptions {
        limits: settings.item_limits(),
        max_event_bytes: settings.max_event_bytes(),
        max_items: settings.max_message_items(),
        producer: Arc::clone(&settings.ingest.producer),
        missing_id: settings.broker.missing_id,
        again: Some(again),
    };
    message::read(&letter.body, &dead_letter::properties_of(letter), &rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::event::id;
    use crate::store::dead_letters::DeadLetterFailure;
    use serde_json::json;
    use uuid::Uuid;

    fn letter(body: &str, message_id: Option<&str>, headers: serde_json::Value) -> DeadLetter {
        let failure = DeadLetterFailure {
            at: crate::event::item::now(),
            cause: "invalid".to_owned(),
            error: String::new(),
            sqlstate: None,
            attempts: 1,
        };
        let mut letter = DeadLetter::new(Uuid::now_v7(), failure, "q", body.into());
        letter.message_id = message_id.map(str::to_owned);
        letter.headers = headers.as_object().cloned().unwrap();
        letter
    }

    fn ids(letter: &DeadLetter) -> Vec<Uuid> {
        let settings = Sources::from_text("").load().unwrap();
        let read = || {
            let contents = read_again(letter, &settings);
            assert!(contents.bad.is_empty(), "{:?}", contents.bad);
            contents
                .events
                .iter()
                .map(|event| event.event_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(read(), read(), "the same each time");
        read()
    }

    #[test]
    fn events_without_an_id_get_one_of_the_letter() {
        let item = r#"{"eventType":"t"}"#;
        let single = letter(item, None, json!({}));
        assert_ne!(ids(&single), ids(&letter(item, None, json!({}))));
        let array = letter(&format!("[{item},{item}]"), None, json!({}));
        let found = ids(&array);
        assert_ne!(found[0], found[1]);
        let named = letter(item, Some("m-1"), json!({}));
        assert_eq!(ids(&named), [id::of_producer("default", "m-1")]);
    }

    #[test]
    fn items_of_one_message_stay_apart() {
        let item = r#"{"eventType":"t"}"#;
        let of = |n: u64| ids(&letter(item, Some("m-1"), json!({"eclusa-item": n})));
        let base = id::of_producer("default", "m-1");
        assert_eq!(of(3), [id::of_message_item(base, 3)]);
        assert_ne!(of(3), of(4));
        let own = letter(
            r#"{"eventType":"t","id":"own"}"#,
            Some("m-1"),
            json!({"eclusa-item": 3}),
        );
        assert_eq!(ids(&own), [id::of_producer("default", "own")]);
    }

    #[test]
    fn a_frame_of_a_later_release_is_not_guessed_at() {
        let mut frame = letter("[]", None, json!({"eclusa-frame": 2}));
        frame.frame = true;
        let settings = Sources::from_text("").load().unwrap();
        let contents = read_again(&frame, &settings);
        assert!(contents.bad[0].error.contains("version 2"));
    }
}

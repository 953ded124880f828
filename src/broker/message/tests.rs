use super::*;

fn rules(missing_id: MissingId) -> Rulebook {
    Rulebook {
        limits: ItemLimits {
            max_depth: 16,
            max_field_bytes: 256,
            accept_days: 400,
        },
        max_event_bytes: None,
        max_items: 1_000,
        producer: "shop".into(),
        missing_id,
        again: None,
    }
}

fn read_text(text: &str) -> Contents {
    read(
        text.as_bytes(),
        &BasicProperties::default(),
        &rules(MissingId::Random),
    )
}

#[test]
fn an_array_of_more_than_fits_is_put_aside_whole() {
    for item in ["0", r#"{"eventType":"t"}"#] {
        let array = |count: usize| format!("[{}]", vec![item; count].join(","));
        let most = read_text(&array(1_000));
        assert_eq!(most.events.len() + most.bad.len(), 1_000);
        let text = array(1_001);
        let more = read_text(&text);
        assert_eq!((more.events.len(), more.bad.len()), (0, 1));
        assert_eq!(more.bad[0].body, text.as_bytes());
        assert_eq!(more.bad[0].cause, Cause::Invalid);
        assert!(
            more.bad[0].error.contains("1001 events"),
            "{}",
            more.bad[0].error
        );
    }
}

#[test]
fn one_event_an_array_and_both_in_an_envelope_are_read() {
    let event = r#"{"userId":"u","eventType":"t","eventData":{"a":1}}"#;
    for (text, events) in [
        (event.to_owned(), 1),
        (format!("[{event}, {event}]"), 2),
        (format!(r#"{{"pattern":"events","data":{event}}}"#), 1),
        (
            format!(r#"{{"pattern":{{"cmd":"x"}},"data":[{event}],"id":"rpc"}}"#),
            1,
        ),
        (r#"{"pattern":"t","data":{"userId":"u"}}"#.to_owned(), 1),
        (r#"{"pattern":"t","data":{}}"#.to_owned(), 1),
    ] {
        let contents = read_text(&text);
        assert!(contents.bad.is_empty(), "{text}: {:?}", contents.bad);
        assert_eq!(contents.events.len(), events, "{text}");
        assert_eq!(contents.events[0].event_type, "t", "{text}");
    }
    let with_pattern = r#"{"pattern":"p","data":1,"eventType":"t"}"#;
    assert_eq!(
        read_text(with_pattern).events.len(),
        1,
        "an event may have such fields"
    );
}

#[test]
fn what_is_none_of_these_keeps_its_bytes() {
    for text in [
        "",
        "hello",
        "17",
        "[",
        "[]",
        "{\"eventType\":",
        r#"{"pattern":"p","data":7}"#,
    ] {
        let contents = read_text(text);
        assert!(contents.events.is_empty());
        assert_eq!(contents.bad.len(), 1, "{text}");
        assert_eq!(contents.bad[0].cause, Cause::Malformed, "{text}");
        assert_eq!(contents.bad[0].body, text.as_bytes());
    }
    let bytes = [0xff, 0x00, 0x80];
    let contents = read(
        &bytes,
        &BasicProperties::default(),
        &rules(MissingId::Random),
    );
    assert_eq!(contents.bad[0].body, bytes);
}

#[test]
fn a_bad_item_is_put_aside_alone() {
    let contents = read_text(r#"[{"eventType":"a"},{"eventType":7},{"eventType":"b"}]"#);
    assert_eq!(contents.events.len(), 2);
    assert_eq!(contents.bad.len(), 1);
    assert_eq!(contents.bad[0].cause, Cause::Invalid);
    assert_eq!(contents.bad[0].body, br#"{"eventType":7}"#);
    assert!(
        contents.bad[0]
            .error
            .contains("item 1: eventType must be a string")
    );
}

#[test]
fn the_id_is_the_bodys_else_the_messages_else_by_setting() {
    let properties = BasicProperties::default().with_message_id("m-1".into());
    let read = |text: &str, properties: &BasicProperties, missing| {
        let contents = super::read(text.as_bytes(), properties, &rules(missing));
        contents
            .events
            .iter()
            .map(|e| e.event_id)
            .collect::<Vec<_>>()
    };
    let none = BasicProperties::default();
    let plain = r#"{"eventType":"t"}"#;
    let own = r#"{"eventType":"t","id":"own"}"#;
    assert_eq!(
        read(own, &properties, MissingId::Random),
        [id::of_producer("shop", "own")]
    );
    assert_eq!(
        read(plain, &properties, MissingId::Random),
        [id::of_producer("shop", "m-1")]
    );
    assert_ne!(
        read(plain, &none, MissingId::Random),
        read(plain, &none, MissingId::Random)
    );
    assert_eq!(
        read(plain, &none, MissingId::Content),
        read(plain, &none, MissingId::Content)
    );

    let array = r#"[{"eventType":"t"},{"eventType":"t"}]"#;
    let ids = read(array, &properties, MissingId::Random);
    assert_eq!(ids, read(array, &properties, MissingId::Random));
    assert_ne!(ids[0], ids[1]);
    assert_eq!(
        read(array, &none, MissingId::Content),
        read(array, &none, MissingId::Content)
    );
}

#[test]
fn a_frame_of_a_later_release_is_put_aside_not_guessed_at() {
    let mut headers = lapin::types::FieldTable::default();
    headers.insert(frame::VERSION_HEADER.into(), AMQPValue::LongLongInt(2));
    let properties = BasicProperties::default().with_headers(headers);
    let contents = read(b"[]", &properties, &rules(MissingId::Random));
    assert!(contents.bad[0].error.contains("version 2"));
}

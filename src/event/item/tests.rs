use super::*;

const LIMITS: ItemLimits = ItemLimits {
    max_depth: 16,
    max_field_bytes: 32,
    accept_days: 400,
};

fn flaws(text: &str) -> Vec<(String, String)> {
    parse(text, &LIMITS, Rules::HTTP)
        .unwrap_err()
        .into_iter()
        .map(|f| (f.field, f.reason))
        .collect()
}

#[test]
fn a_whole_item_is_read() {
    let fields = parse(
        r#"{"id":"a1","userId":"u","eventType":"t","eventData":{"n":1.0},"sessionId":null,
            "timestamp":"2026-01-31T10:30:00.1234567+01:00"}"#,
        &LIMITS,
        Rules::HTTP,
    )
    .unwrap();
    assert_eq!(fields.id.as_deref(), Some("a1"));
    assert_eq!(fields.event_data.get(), r#"{"n":1.0}"#);
    assert_eq!(fields.session_id, None);
    assert_eq!(
        fields.timestamp.unwrap().to_rfc3339(),
        "2026-01-31T09:30:00.123456+00:00"
    );
}

#[test]
fn data_defaults_to_an_empty_object_and_user_only_http_requires() {
    let text = r#"{"eventType":"t","more":1}"#;
    let fields = parse(text, &LIMITS, Rules::AMQP).unwrap();
    assert_eq!(fields.event_data.get(), r#"{"more":1}"#);
    let found = flaws(text);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn fields_beside_an_events_are_kept_where_they_are_not_refused() {
    let data = |text: &str| {
        let fields = parse(text, &LIMITS, Rules::AMQP).unwrap();
        fields.event_data.get().to_owned()
    };
    assert_eq!(
        data(r#"{"eventType":"t","total":12.50,"items":[1]}"#),
        r#"{"total":12.50,"items":[1]}"#
    );
    assert_eq!(
        data(r#"{"eventType":"t","eventData":{"a":1},"processed":false}"#),
        r#"{"a":1,"_extra":{"processed":false}}"#
    );
    assert_eq!(
        data(r#"{"eventType":"t","eventData":{},"processed":false}"#),
        r#"{"_extra":{"processed":false}}"#
    );
    let twice = r#"{"eventType":"t","total":1,"total":2}"#;
    assert!(parse(twice, &LIMITS, Rules::AMQP).is_err());
}

#[test]
fn all_flaws_are_told_at_once() {
    let found = flaws(
        r#"{"userId":7,"eventType":"","eventData":[],"timestamp":"yesterday","session_id":"s"}"#,
    );
    let fields: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "session_id",
            "userId",
            "eventType",
            "timestamp",
            "eventData"
        ]
    );
    assert!(
        found[0].1.contains("did you mean sessionId"),
        "{}",
        found[0].1
    );
}

#[test]
fn texts_no_store_takes_are_refused() {
    for (value, reason) in [
        (r#""a\u0000b""#, "U+0000"),
        (r#""\uD800""#, "surrogate"),
        (r#""012345678901234567890123456789012""#, "longer than 32"),
        ("true", "not a boolean"),
    ] {
        let found = flaws(&format!(r#"{{"userId":{value},"eventType":"t"}}"#));
        assert!(found[0].1.contains(reason), "{value}: {found:?}");
    }
    assert!(
        flaws(r#"{"userId":"u","userId":"v","eventType":"t"}"#)[0]
            .1
            .contains("twice")
    );
    assert!(flaws("[1]")[0].1.contains("object"));
}

#[test]
fn an_id_that_is_no_uuid_becomes_one_per_producer() {
    let resolve = |id: &str, producer| resolve_id(id.to_owned(), producer, now(), 400).unwrap();
    let (a, original) = resolve("order-1", "shop");
    assert_eq!(original.as_deref(), Some("order-1"));
    assert_ne!(a, resolve("order-1", "blog").0);
    let uuid = "8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11";
    assert_eq!(
        resolve(uuid, "shop"),
        (Uuid::parse_str(uuid).unwrap(), None)
    );
    assert!(resolve_id(Uuid::nil().to_string(), "shop", now(), 400).is_err());
}

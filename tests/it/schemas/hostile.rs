//! Schemas and payloads that are made to hang or crash the process.

use super::*;
use crate::harness::temp_dir;
use std::time::Instant;

/// Far more than a check takes, and less than one that runs away.
const LONG: Duration = Duration::from_secs(20);

async fn refused(schema: &str, words: &str) {
    let folder = temp_dir("schemas-");
    let entries = json!([{"type": "order.placed", "version": 1, "schema": schema}]);
    let began = Instant::now();
    let builder = App::builder()
        .embedded(folder.path())
        .set("schemas", entries);
    let (status, said) = builder.refused().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("schemas[0].schema") && said.contains(words),
        "{words}: {said}"
    );
    assert!(began.elapsed() < LONG, "{words}");
}

#[tokio::test]
async fn schemas_that_would_never_end_or_fetch_are_refused_in_words() {
    refused(r##"{"$ref": "#"}"##, "again and again").await;
    refused(
        r##"{"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}}"##,
        "again and again",
    )
    .await;
    refused(
        r#"{"$ref": "http://127.0.0.1:9/schema.json"}"#,
        "nothing is fetched",
    )
    .await;
    refused(r#"{"$ref": "file:///etc/passwd"}"#, "nothing is fetched").await;
    refused(r#"{"$ref": "../../../etc/passwd"}"#, "nothing is fetched").await;
    refused(r#"{"pattern": "(a+)+$(?=b)"}"#, "no valid JSON Schema").await;
    refused(
        r#"{"pattern": "(((a{1000}){1000}){1000})"}"#,
        "no valid JSON Schema",
    )
    .await;
    refused(r#"{"minimum": 1e999}"#, "not valid JSON").await;
    refused(
        &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        "not valid JSON",
    )
    .await;
    let doubling: serde_json::Map<String, Value> = (0..60)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            (format!("d{n}"), json!({"anyOf": [next, next]}))
        })
        .chain([("d60".to_owned(), json!({"type": "string"}))])
        .collect();
    let laughs = json!({"$ref": "#/$defs/d0", "$defs": doubling});
    refused(&laughs.to_string(), "too many subschemas").await;
    refused(
        &json!({"description": "x".repeat(1024 * 1024)}).to_string(),
        "more than the 1048576",
    )
    .await;
}

#[tokio::test]
async fn payloads_are_checked_in_time_or_refused_for_what_they_would_take() {
    let folder = temp_dir("schemas-");
    let large: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| {
            (
                format!("p{n}"),
                json!({"type": "integer", "maximum": 1e300}),
            )
        })
        .collect();
    let branches: Vec<Value> = (0..4)
        .map(|n| json!({"properties": {"op": {"const": n}, "of": {"$ref": "#"}}, "required": ["op"]}))
        .collect();
    let entries = json!([
        {"type": "regex", "version": 1, "schema": json!({"properties": {"a": {"pattern": "^(a+)+$"}}}).to_string()},
        {"type": "large", "version": 1, "schema": json!({"properties": large}).to_string()},
        {"type": "deep", "version": 1, "schema": json!({"anyOf": branches}).to_string()},
        {"type": "unique", "version": 1, "schema": json!({"properties": {"a": {"uniqueItems": true}}}).to_string()},
    ]);
    let app = App::builder()
        .embedded(folder.path())
        .set("schemas", entries)
        .start()
        .await;
    app.wait_ready().await;
    let send = async |kind: &str, data: String| {
        let body = format!(r#"{{"userId": "u", "eventType": "{kind}", "eventData": {data}}}"#);
        let began = Instant::now();
        let response = app.post_as("/v1/events", "application/json", body).await;
        assert!(began.elapsed() < LONG, "{kind}");
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let many = "a".repeat(200_000);
    assert_eq!(send("regex", format!(r#"{{"a": "{many}"}}"#)).await.0, 202);
    assert_eq!(send("regex", format!(r#"{{"a": "{many}!"}}"#)).await.0, 400);
    assert_eq!(send("large", r#"{"p1": 5}"#.to_owned()).await.0, 202);
    assert_eq!(send("large", r#"{"p1": 5.5}"#.to_owned()).await.0, 400);
    let (status, text) = send("large", r#"{"p1": 1e400}"#.to_owned()).await;
    assert!(status == 400 && text.contains("out of range"), "{text}");
    // More digits than an f64 has are kept as they are.
    let huge = format!(
        r#"{{"id": "huge", "userId": "u", "eventType": "large", "eventData": {{"x": {}}}}}"#,
        "9".repeat(60)
    );
    assert_eq!(
        app.post_as("/v1/events", "application/json", huge)
            .await
            .status(),
        202
    );
    let text = app
        .get("/v1/events/huge?wait=30s&schema=latest")
        .await
        .text()
        .await
        .unwrap();
    assert!(text.contains(&"9".repeat(60)), "{text}");
    let nested = |depth: usize| {
        format!(
            "{}{{\"op\": 9}}{}",
            r#"{"op": 1, "of": "#.repeat(depth),
            "}".repeat(depth)
        )
    };
    let (status, text) = send("deep", nested(3)).await;
    assert!(status == 400 && text.contains("anyOf"), "{text}");
    let (status, text) = send("deep", nested(25)).await;
    assert!(status == 400 && text.contains("bounds"), "{text}");
    let items: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    assert_eq!(
        send("unique", format!(r#"{{"a": [{}]}}"#, items.join(",")))
            .await
            .0,
        202
    );
    // The process is as it was.
    assert!(app.is_ready().await);
}

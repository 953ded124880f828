//! CloudEvents, attribute by attribute as the specification has them.

use super::*;
use crate::followers::Place;
use crate::harness::RabbitMq;
use chrono::DateTime;

#[actix_rt::test]
async fn an_event_is_a_cloud_event_in_the_structured_mode() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let app = start(&place, to_stream(&url, json!({"format": "cloudevents"}))).await;
    let sent = json!({
        "id": "o-1", "userId": "ü 1", "eventType": "order.paid", "sessionId": "s1",
        "eventData": {"total": 12.50, "big": 9_007_199_254_740_993_u64},
        "timestamp": "2026-01-02T03:04:05.678901+01:00",
    });
    assert!(app.post("/v1/events", &sent).await.status().is_success());
    let mut reader = Reader::of_stream(&url, STREAM).await;
    let message = &reader.messages(1).await[0];
    // This media type is how a receiver knows the structured mode.
    let properties = &message.properties;
    let content_type = properties.content_type().clone().unwrap();
    assert_eq!(content_type.as_str(), "application/cloudevents+json");
    let event = body(message);
    let text = |name: &str| {
        event[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {event}"))
    };
    assert_eq!(text("specversion"), "1.0");
    assert_eq!(text("id"), id(message));
    assert_eq!(text("type"), "order.paid");
    assert_eq!(text("subject"), "ü 1");
    assert_eq!(text("datacontenttype"), "application/json");
    // A URI reference.
    assert_eq!(text("source"), "/producers/default");
    let time = DateTime::parse_from_rfc3339(text("time")).unwrap();
    assert_eq!(time.timestamp_micros(), 1_767_319_445_678_901);
    assert_eq!(event["data"], sent["eventData"]);
    assert_eq!((text("originalid"), text("sessionid")), ("o-1", "s1"));
    // Names of attributes are lower-case letters and digits.
    for name in event.as_object().unwrap().keys() {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(name.chars().all(allowed) && name.len() <= 20, "{name}");
    }
    assert!(header(message, "eclusa-position").starts_with("1-"));
}

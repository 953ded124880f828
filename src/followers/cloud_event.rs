//! An event as a CloudEvent 1.0 in the JSON format, which webhooks and outlets send.

use crate::config::layers::percent_encode;
use crate::event::StoredEvent;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// Media type of the structured mode.
pub(crate) const MEDIA_TYPE: &str = "application/cloudevents+json";

/// The attributes; names of extensions are lower-case letters and digits.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: String,
    r#type: &'a str,
    time: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    datacontenttype: &'static str,
    /// When the event was received.
    recordedtime: DateTime<Utc>,
    /// The producer's id, when it was not a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    originalid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessionid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schemaversion: Option<i16>,
    /// The text of the producer, so numbers keep their digits.
    data: &'a RawValue,
}

/// The JSON text of an event. `source` is `/producers/` and the producer, percent-encoded, since it is
/// a URI reference.
///
/// # Errors
/// None that is known: all fields have a form in JSON.
pub(crate) fn text(event: &StoredEvent) -> Result<String, serde_json::Error> {
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: event.event_id,
        source: format!("/producers/{}", percent_encode(&event.producer)),
        r#type: &event.event_type,
        time: event.timestamp,
        subject: event.user_id.as_deref(),
        datacontenttype: "application/json",
        recordedtime: event.received_at,
        originalid: event.original_id.as_deref(),
        sessionid: event.session_id.as_deref(),
        schemaversion: event.schema_version,
        data: &event.event_data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> StoredEvent {
        serde_json::from_value(serde_json::json!({
            "sequence": 7, "id": "0198c0de-0000-7000-8000-000000000001", "producer": "web shop",
            "userId": null, "eventType": "order.paid", "eventData": {}, "sessionId": null,
            "timestamp": "2026-01-02T03:04:05.678901Z", "receivedAt": "2026-01-02T03:04:06Z",
            "source": "http", "processed": false,
        }))
        .map(|event| StoredEvent {
            event_data: RawValue::from_string(data.to_owned()).unwrap(),
            ..event
        })
        .unwrap()
    }

    #[test]
    fn data_keeps_its_text_and_absent_attributes_are_left_out() {
        // Spaces, the order of keys and digits beyond an f64 are the producer's.
        let data = r#"{"z": 1.10,  "a":12345678901234567890.10, "u":"\u00e9"}"#;
        assert_eq!(
            text(&event(data)).unwrap(),
            concat!(
                r#"{"specversion":"1.0","id":"0198c0de-0000-7000-8000-000000000001","#,
                r#""source":"/producers/web%20shop","type":"order.paid","#,
                r#""time":"2026-01-02T03:04:05.678901Z","datacontenttype":"application/json","#,
                r#""recordedtime":"2026-01-02T03:04:06Z","#,
                r#""data":{"z": 1.10,  "a":12345678901234567890.10, "u":"\u00e9"}}"#
            )
        );
    }

    #[test]
    fn user_session_and_original_id_are_attributes() {
        let event = StoredEvent {
            user_id: Some("u \"1\"".to_owned()),
            session_id: Some("s".to_owned()),
            original_id: Some("o".to_owned()),
            ..event("{}")
        };
        let json: serde_json::Value = serde_json::from_str(&text(&event).unwrap()).unwrap();
        assert_eq!(json["subject"], "u \"1\"");
        assert_eq!(json["sessionid"], "s");
        assert_eq!(json["originalid"], "o");
    }
}

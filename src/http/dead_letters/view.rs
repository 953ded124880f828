//! Dead letters as JSON, over HTTP and in exports.

use crate::event::frame::rfc3339;
use crate::http::openapi::schema;
use crate::store::dead_letters::{DeadLetter, DeadLetterFailure, DeadLetterSummary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

/// A dead letter in a listing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetterSummary)]
pub struct Summary {
    id: Uuid,
    #[schema(value_type = schema::StateWord)]
    state: &'static str,
    /// Why it failed, in a word.
    #[schema(example = "poison")]
    cause: String,
    /// Why it failed, in a sentence.
    error: String,
    /// The code of the store's error.
    #[schema(required)]
    sqlstate: Option<String>,
    /// How often it was tried.
    attempts: u32,
    /// The event's id, where the message could be read.
    #[schema(required)]
    event_id: Option<Uuid>,
    #[schema(required)]
    event_type: Option<String>,
    /// The queue it was taken from, or `direct`.
    origin: String,
    /// When it failed last.
    #[schema(format = DateTime)]
    failed_at: String,
    /// When it failed first.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was replayed last.
    #[schema(required, format = DateTime)]
    replayed_at: Option<String>,
    /// How often it was replayed.
    replays: u32,
    body_bytes: u64,
}

/// A whole dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter)]
pub struct Letter {
    #[serde(flatten)]
    summary: Summary,
    #[schema(required)]
    content_type: Option<String>,
    /// AMQP `message_id`.
    #[schema(required)]
    message_id: Option<String>,
    /// Whether the body is a frame of Eclusa's own.
    frame: bool,
    /// The message's headers.
    #[schema(value_type = Object)]
    headers: Map<String, Value>,
    /// The failures before the last one, the oldest first.
    history: Vec<Past>,
    /// Failures left out of the history, which is bounded.
    history_omitted: u32,
    /// `utf-8` or `base64`.
    body_encoding: &'static str,
    body: String,
}

/// A failure before the last one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterFailure)]
struct Past {
    #[schema(format = DateTime)]
    at: String,
    cause: String,
    error: String,
    #[schema(required)]
    sqlstate: Option<String>,
    attempts: u32,
}

impl From<DeadLetterSummary> for Summary {
    fn from(letter: DeadLetterSummary) -> Self {
        let DeadLetterFailure {
            at,
            cause,
            error,
            sqlstate,
            attempts,
        } = letter.failure;
        Self {
            id: letter.id,
            state: letter.state.as_str(),
            cause,
            error,
            sqlstate,
            attempts,
            event_id: letter.event_id,
            event_type: letter.event_type,
            origin: letter.origin,
            failed_at: rfc3339(at),
            created_at: rfc3339(letter.created_at),
            replayed_at: letter.replayed_at.map(rfc3339),
            replays: letter.replays,
            body_bytes: letter.body_bytes,
        }
    }
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        let body_bytes = letter.body.len() as u64;
        let (body_encoding, body) = match String::from_utf8(letter.body) {
            Ok(text) => ("utf-8", text),
            Err(error) => ("base64", STANDARD.encode(error.as_bytes())),
        };
        let past = |failure: DeadLetterFailure| Past {
            at: rfc3339(failure.at),
            cause: failure.cause,
            error: failure.error,
            sqlstate: failure.sqlstate,
            attempts: failure.attempts,
        };
        Self {
            summary: Summary::from(DeadLetterSummary {
                id: letter.id,
                event_id: letter.event_id,
                event_type: letter.event_type,
                failure: letter.failure,
                origin: letter.origin,
                created_at: letter.created_at,
                state: letter.state,
                replayed_at: letter.replayed_at,
                replays: letter.replays,
                body_bytes,
            }),
            content_type: letter.content_type,
            message_id: letter.message_id,
            frame: letter.frame,
            headers: letter.headers,
            history_omitted: letter.history.omitted,
            history: letter.history.failures.into_iter().map(past).collect(),
            body_encoding,
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn bytes_that_are_no_text_come_as_base64() {
        let failure = DeadLetterFailure {
            at: DateTime::from_timestamp(0, 0).unwrap(),
            cause: "malformed".to_owned(),
            error: "no".to_owned(),
            sqlstate: None,
            attempts: 1,
        };
        let shown = |body: &[u8]| {
            let letter = DeadLetter::new(Uuid::nil(), failure.clone(), "direct", body.to_vec());
            let shown = serde_json::to_value(Letter::from(letter)).unwrap();
            (shown["bodyEncoding"].clone(), shown["body"].clone())
        };
        assert_eq!(shown("é".as_bytes()), ("utf-8".into(), "é".into()));
        assert_eq!(shown(b"\xff\x00"), ("base64".into(), "/wA=".into()));
    }
}

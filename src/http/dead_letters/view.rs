//! Dead letters as JSON, over HTTP and in exports.

use crate::event::frame::rfc3339;
use crate::store::dead_letters::{DeadLetter, Failure, LetterSummary};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// A letter in a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    id: Uuid,
    state: &'static str,
    cause: String,
    error: String,
    sqlstate: Option<String>,
    attempts: u32,
    event_id: Option<Uuid>,
    event_type: Option<String>,
    origin: String,
    failed_at: String,
    created_at: String,
    replayed_at: Option<String>,
    replays: u32,
    body_bytes: u64,
}

/// A whole letter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    #[serde(flatten)]
    summary: Summary,
    content_type: Option<String>,
    message_id: Option<String>,
    frame: bool,
    headers: Map<String, Value>,
    history: Vec<Past>,
    body_encoding: &'static str,
    body: String,
}

/// A failure before the last one.
#[derive(Debug, Serialize)]
struct Past {
    at: String,
    cause: String,
    error: String,
    sqlstate: Option<String>,
    attempts: u32,
}

impl From<LetterSummary> for Summary {
    fn from(letter: LetterSummary) -> Self {
        let Failure {
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
        let past = |failure: Failure| Past {
            at: rfc3339(failure.at),
            cause: failure.cause,
            error: failure.error,
            sqlstate: failure.sqlstate,
            attempts: failure.attempts,
        };
        Self {
            summary: Summary::from(LetterSummary {
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
            history: letter.history.into_iter().map(past).collect(),
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
        let failure = Failure {
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

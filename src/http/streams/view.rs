//! Streams and their messages as the API shows them.

use crate::collectors::Stream;
use crate::store::streams::{Delivered, PlaceRecord, SessionRecord, StreamLevel, StreamRecord};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Streams by name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamList {
    pub streams: Vec<StreamView>,
}

/// A declared stream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Stream)]
pub struct StreamView {
    pub name: String,
    /// Event types, in which `*` stands for any characters.
    pub types: Vec<String>,
    /// Sessions of a key at a time.
    pub slots: u32,
    /// Messages that wait to be handed out.
    pub waiting: u64,
    /// Messages that are handed out and not acknowledged.
    pub leased: u64,
    pub sessions: u64,
    /// For how many seconds the oldest message waits that was never handed out.
    pub oldest_waiting_seconds: Option<f64>,
}

impl StreamView {
    pub(super) fn new(stream: &Stream, level: StreamLevel) -> Self {
        Self {
            name: stream.name.clone(),
            types: stream.types.to_vec(),
            slots: stream.rules.slots,
            waiting: level.waiting,
            leased: level.leased,
            sessions: level.sessions,
            oldest_waiting_seconds: level.oldest_waiting.map(|age| age.as_secs_f64()),
        }
    }
}

/// A stream as a store knows it, which may have been declared by other settings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredStreamView {
    pub name: String,
    pub declared_at: DateTime<Utc>,
    pub waiting: u64,
    pub leased: u64,
    pub sessions: u64,
    pub oldest_waiting_seconds: Option<f64>,
}

impl StoredStreamView {
    pub fn new(record: StreamRecord, level: StreamLevel) -> Self {
        Self {
            name: record.name,
            declared_at: record.declared_at,
            waiting: level.waiting,
            leased: level.leased,
            sessions: level.sessions,
            oldest_waiting_seconds: level.oldest_waiting.map(|age| age.as_secs_f64()),
        }
    }
}

/// A stream and a page of its keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = StreamKeys)]
pub struct PlaceList {
    pub stream: StreamView,
    pub keys: Vec<PlaceView>,
    /// Give this as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A key of a stream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = StreamKey)]
pub struct PlaceView {
    pub key: String,
    /// Messages that wait to be handed out.
    pub waiting: u64,
    pub sessions: Vec<SessionView>,
}

impl From<PlaceRecord> for PlaceView {
    fn from(record: PlaceRecord) -> Self {
        Self {
            key: record.key,
            waiting: record.waiting,
            sessions: record.sessions.into_iter().map(SessionView::from).collect(),
        }
    }
}

/// A live session of a collector.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamSession)]
pub struct SessionView {
    pub id: i64,
    pub slot: u32,
    pub started_at: DateTime<Utc>,
    /// When it lapses unless its collector calls.
    pub expires_at: DateTime<Utc>,
    /// Messages that it was handed and has not acknowledged.
    pub leased: u32,
}

impl From<SessionRecord> for SessionView {
    fn from(record: SessionRecord) -> Self {
        Self {
            id: record.id,
            slot: record.slot,
            started_at: record.started_at,
            expires_at: record.expires_at,
            leased: record.leased,
        }
    }
}

/// The messages of an answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = StreamMessages)]
pub struct CollectedMessages {
    pub messages: Vec<CollectedMessage>,
}

/// A message of a stream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamMessage)]
pub struct CollectedMessage {
    /// The event's id.
    pub id: Uuid,
    /// How often it was handed out, with this one.
    pub delivery_count: u32,
    /// The event, or the fields that the stream's settings name.
    pub message: serde_json::Value,
}

/// [`CollectedMessages`] as JSON. Bodies are JSON already and stand as they are.
pub(super) fn to_json(messages: Vec<Delivered>) -> String {
    let one = |message: Delivered| {
        format!(
            r#"{{"id":"{}","deliveryCount":{},"message":{}}}"#,
            message.event_id, message.deliveries, message.body
        )
    };
    let all: Vec<String> = messages.into_iter().map(one).collect();
    format!(r#"{{"messages":[{}]}}"#, all.join(","))
}

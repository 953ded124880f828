//! Events sent to a running server.

use crate::cli::server::Server;
use crate::event::{Event, frame};
use crate::http::ingest::{IngestReply, IngestStatus};
use anyhow::bail;
use serde::Serialize;
use serde_json::value::RawValue;

/// What became of events.
#[derive(Debug, Default, Clone, Copy)]
pub struct Written {
    /// New events.
    pub stored: u64,
    /// Events that were stored already.
    pub duplicate: u64,
    /// Events that the store refuses, which are dead letters now.
    pub dead: u64,
}

/// An event as a caller sends it. The payload goes as it stands: read into numbers and written
/// again it could come out as another one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    event_type: &'a str,
    event_data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

impl<'a> Item<'a> {
    fn of(event: &'a Event) -> Self {
        let original = event.original_id.clone();
        Self {
            // The original, from which the server derives the same id for the same producer.
            id: original.unwrap_or_else(|| event.event_id.to_string()),
            user_id: event.user_id.as_deref(),
            event_type: &event.event_type,
            event_data: &event.event_data,
            schema_version: event.schema_version,
            session_id: event.session_id.as_deref(),
            timestamp: event.timestamp.map(frame::rfc3339),
        }
    }
}

/// Sends a chunk.
///
/// # Errors
/// As [`Server::post`], and for events without a user, which HTTP does not take.
pub async fn send(server: &Server, events: &[Event]) -> anyhow::Result<Written> {
    if events.iter().any(|event| event.user_id.is_none()) {
        bail!("a server takes no events without userId; stop it and import into its data folder");
    }
    let items: Vec<Item> = events.iter().map(Item::of).collect();
    let body = serde_json::to_vec(&items)?;
    let reply: IngestReply = server.post("/v1/events", &body).await?;
    let mut written = Written::default();
    for item in reply.items {
        match item.status {
            IngestStatus::Duplicate => written.duplicate += 1,
            IngestStatus::DeadLettered => written.dead += 1,
            IngestStatus::Stored | IngestStatus::Queued => written.stored += 1,
        }
    }
    Ok(written)
}

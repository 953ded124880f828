//! Events sent to a running server over HTTP: while it has the embedded mode's file, it alone
//! writes there.

use crate::event::{Event, frame};
use anyhow::{Context as _, bail};
use awc::Client;
use awc::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use uuid::Uuid;

/// A server that takes events.
pub struct Remote {
    client: Client,
    url: String,
    key: Option<String>,
}

/// What the server made of a chunk.
#[derive(Debug, Default, Clone, Copy)]
pub struct Taken {
    /// New events.
    pub stored: u64,
    /// Events it had already.
    pub duplicate: u64,
    /// Events that the store refuses, which are dead letters now.
    pub dead: u64,
}

/// An event as a caller sends it. The payload goes as it stands: read into numbers and written
/// again it could come out as another one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    event_type: &'a str,
    event_data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

impl<'a> Item<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            // Settled here, so that the same file is the same events whichever way it goes.
            id: event.event_id,
            user_id: event.user_id.as_deref(),
            event_type: &event.event_type,
            event_data: &event.event_data,
            session_id: event.session_id.as_deref(),
            timestamp: event.timestamp.map(frame::rfc3339),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<AnswerItem>,
}

#[derive(Deserialize)]
struct AnswerItem {
    status: String,
}

impl Remote {
    /// A server at `url`, such as `http://127.0.0.1:3000`.
    pub fn new(url: &str, key: Option<String>) -> Self {
        Self {
            client: Client::builder().timeout(Duration::from_secs(60)).finish(),
            url: format!("{}/v1/events", url.trim_end_matches('/')),
            key,
        }
    }

    /// Sends a chunk. `Ok(None)` when the server cannot take it now.
    ///
    /// # Errors
    /// When it refuses the chunk for good, with its reason.
    pub async fn send(&self, events: &[Event]) -> anyhow::Result<Option<Taken>> {
        let items: Vec<Item> = events.iter().map(Item::of).collect();
        let body = serde_json::to_vec(&items)?;
        let mut request = self.client.post(&self.url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut response = match request
            .content_type("application/json")
            .send_body(body)
            .await
        {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "the server does not answer");
                return Ok(None);
            }
        };
        let body = response.body().limit(16 * 1024 * 1024).await?;
        match response.status() {
            StatusCode::ACCEPTED => {
                let answer: Answer =
                    serde_json::from_slice(&body).context("the server's answer is not Eclusa's")?;
                let mut taken = Taken::default();
                for item in answer.items {
                    match item.status.as_str() {
                        "duplicate" => taken.duplicate += 1,
                        "deadLettered" => taken.dead += 1,
                        _ => taken.stored += 1,
                    }
                }
                Ok(Some(taken))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Ok(None),
            status => bail!(
                "the server answered {status}: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }

    /// Whether an event can go this way: HTTP asks for a user.
    pub fn takes(event: &Event) -> bool {
        event.user_id.is_some()
    }
}

//! Topics as the API shows them.

use crate::http::followers::view::OutsidePosition;
use crate::http::openapi::schema;
use crate::store::topics::TypeCount;
use crate::topics::counts::TypeListing;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A server-sent event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the stream writes as text")]
pub struct TopicMessage {
    /// The position behind which a client goes on.
    #[schema(nullable = false, example = "1-8191")]
    id: Option<String>,
    /// The event, as `GET /v1/events/{id}` shows it, as JSON.
    data: String,
}

/// The event types of the log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicList {
    /// By type.
    pub topics: Vec<TopicView>,
    /// Events of further types, where the log has more than 10,000.
    pub others: u64,
    /// When this was so. Events that the retention has deleted are still counted for some minutes.
    pub as_of: DateTime<Utc>,
    /// Up to here events are counted.
    #[schema(example = "1-8191")]
    pub position: String,
    /// Whether that was the end of the log. A large log is not counted within one request; the next one goes on.
    pub complete: bool,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    pub next: Option<String>,
}

/// An event type.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Topic)]
pub struct TopicView {
    #[serde(rename = "type")]
    #[schema(example = "page.view")]
    pub event_type: String,
    pub events: u64,
    /// When the first one was received.
    pub first_received_at: DateTime<Utc>,
    /// When the last one was received.
    pub last_received_at: DateTime<Utc>,
}

/// A line of a stream of JSON: an event; or, without one, a sign of life. The last line has `end`.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it describes lines in the OpenAPI document, and has no values"
)]
pub struct TopicLine {
    /// The position of the event, or up to where there was none; `from` and `Last-Event-ID` take it.
    #[schema(example = "1-8191")]
    position: String,
    #[schema(nullable = false)]
    event: Option<schema::StoredEventBody>,
    #[schema(nullable = false)]
    end: Option<TopicEnd>,
}

/// Why a stream ends.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it describes lines in the OpenAPI document, and has no values"
)]
pub struct TopicEnd {
    /// `slow`, `revoked`, `generation`, `deleted`, `stopping` or `finished`.
    reason: String,
    detail: String,
}

impl From<TypeCount> for TopicView {
    fn from(count: TypeCount) -> Self {
        Self {
            event_type: count.event_type,
            events: count.events,
            first_received_at: count.first,
            last_received_at: count.last,
        }
    }
}

impl From<TypeListing> for TopicList {
    fn from(listing: TypeListing) -> Self {
        let last = listing.types.last().map(|last| last.event_type.clone());
        Self {
            others: listing.others,
            as_of: listing.as_of,
            position: OutsidePosition::new(listing.generation, listing.to).to_string(),
            complete: listing.is_complete,
            next: last.filter(|_| listing.has_more),
            topics: listing.types.into_iter().map(Into::into).collect(),
        }
    }
}

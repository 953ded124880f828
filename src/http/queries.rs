//! `GET /v1/events` and `GET /v1/events/{id}`.

use super::HttpState;
use super::auth::Caller;
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::event::{StoredEvent, id};
use crate::store::{ErrorKind, EventFilter, EventStore, Page, StoreError};
use crate::supervision::Phase;
use actix_web::error::QueryPayloadError;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Events on a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Most events on a page.
const MAX_LIMIT: usize = 1_000;
/// A page ends when it has this many bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Events read before anything is known of their size.
const FIRST_STEP: usize = 16;
/// Bytes of an event beside its payload, roughly.
const EVENT_FRAME: usize = 300;
/// Longest wait for an event to become readable.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often the store is asked for an event that another replica may write.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Query parameters of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListQuery {
    user_id: Option<String>,
    event_type: Option<String>,
    session_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetQuery {
    wait: Option<String>,
}

#[derive(Serialize)]
struct EventPage {
    events: Vec<StoredEvent>,
    /// Give this as `cursor` for the next page; null on the last.
    next: Option<String>,
}

/// `GET /v1/events`
pub async fn list_events(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: ListQuery = parse_query(&request)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit is {limit}, but must lie between 1 and {MAX_LIMIT}"
        )));
    }
    let before = query
        .cursor
        .map(|cursor| {
            cursor.parse::<i64>().map_err(|_| {
                Problem::bad_request("cursor must be the `next` of an earlier page, as it was")
            })
        })
        .transpose()?;
    let filter = EventFilter {
        user_id: text("userId", query.user_id)?,
        event_type: text("eventType", query.event_type)?,
        session_id: text("sessionId", query.session_id)?,
        from: time("from", query.from)?,
        to: time("to", query.to)?,
    };
    let page = page(&*state.store, &filter, before, limit).await?;
    Ok(HttpResponse::Ok().json(EventPage {
        events: page.events,
        next: page.next.map(|id| id.to_string()),
    }))
}

/// A page bounded in events and in bytes: it ends early where events are large, and the cursor goes
/// on from there. Read in steps that fit what is left, by the largest event seen so far.
async fn page(
    store: &dyn EventStore,
    filter: &EventFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Page, Problem> {
    let mut page = Page {
        events: Vec::new(),
        next: before,
    };
    let (mut bytes, mut largest) = (0, 0);
    let mut step = FIRST_STEP;
    loop {
        let count = step.min(limit - page.events.len());
        let more = store.list(filter, page.next, count).await;
        let more = more.map_err(|error| unreadable(&error))?;
        for event in &more.events {
            let size = event.event_data.get().len() + EVENT_FRAME;
            bytes += size;
            largest = largest.max(size);
        }
        page.events.extend(more.events);
        page.next = more.next;
        if page.next.is_none() || page.events.len() >= limit || bytes >= MAX_PAGE_BYTES {
            return Ok(page);
        }
        step = ((MAX_PAGE_BYTES - bytes) / largest.max(1)).max(1);
    }
}

/// `GET /v1/events/{id}`
pub async fn get_event(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: GetQuery = parse_query(&request)?;
    let wait = query
        .wait
        .map(|text| {
            humantime::parse_duration(&text).map_err(|_| {
                Problem::bad_request(format!("wait is {text:?}, but must be a time such as 5s"))
            })
        })
        .transpose()?
        .unwrap_or_default()
        .min(MAX_WAIT);
    let given = path.into_inner();
    let event_id = Uuid::try_parse(&given)
        .ok()
        .filter(|_| given.len() == 36)
        .unwrap_or_else(|| id::of_producer(&caller.producer, &given));
    match find(&state, event_id, wait).await? {
        Some(event) => Ok(HttpResponse::Ok().json(event)),
        None => Err(Problem::missing(format!(
            "no event {given} in the log; if it was accepted just now, ask with ?wait=5s"
        ))),
    }
}

/// The event, waiting for it to become readable if it is not.
async fn find(
    state: &HttpState,
    event_id: Uuid,
    wait: Duration,
) -> Result<Option<StoredEvent>, Problem> {
    if wait.is_zero() {
        // Whoever does not wait must not make an open batch leave early.
        let found = state.store.get(event_id).await;
        return found.map_err(|error| unreadable(&error));
    }
    let deadline = tokio::time::Instant::now() + wait;
    let waiting = state.awaited.wait_for(event_id);
    let mut nudged = false;
    loop {
        // Listening begins before looking, so that what is written in between is not missed.
        let mut announced = std::pin::pin!(waiting.announced());
        announced.as_mut().enable();
        let found = state.store.get(event_id).await;
        if let Some(event) = found.map_err(|error| unreadable(&error))? {
            return Ok(Some(event));
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() || state.lifecycle.phase() == Phase::Draining {
            return Ok(None);
        }
        if !nudged {
            // The event may lie in this process's open batch, which then goes out at once.
            nudged = state.lanes.nudge();
        }
        tokio::select! {
            () = announced => {}
            () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
        }
    }
}

pub(super) fn parse_query<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| match error {
            QueryPayloadError::Deserialize(error) => {
                Problem::bad_request(format!("the query cannot be read: {error}"))
            }
            other => Problem::bad_request(format!("the query cannot be read: {other}")),
        })
}

pub(super) fn text(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    match value {
        Some(text) if text.contains('\0') => {
            Err(Problem::bad_request(format!("{name} contains U+0000")))
        }
        other => Ok(other),
    }
}

pub(super) fn time(name: &str, value: Option<String>) -> Result<Option<DateTime<Utc>>, Problem> {
    value
        .map(|text| {
            // A plus that was not percent-encoded arrives as a space.
            DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
                .map(|time| time.with_timezone(&Utc))
                .map_err(|_| {
                    Problem::bad_request(format!(
                        "{name} is {text:?}, but must be a time as in RFC 3339, such as \
                         2026-01-31T09:30:00Z"
                    ))
                })
        })
        .transpose()
}

/// The store's failures are never the reader's.
pub(super) fn unreadable(error: &StoreError) -> Problem {
    tracing::error!(kind = error.kind().as_str(), %error, "query failed");
    if error.kind() == ErrorKind::Transient {
        return Problem::unavailable(
            "the store could not answer in time; narrow the query, by userId for example, or try \
             again",
        );
    }
    Problem::unavailable("the store cannot be read now")
}

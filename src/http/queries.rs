//! Queries of the event log: `GET /v1/events` and `GET /v1/events/{id}`.

use super::HttpState;
use super::auth::Caller;
use super::listing::{cursor, limit, parse_query, text, time, unreadable};
use super::openapi::problems::{ListProblems, LookupProblems};
use super::openapi::schema;
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::event::schemas::SchemaView;
use crate::event::{StoredEvent, id};
use crate::store::{EventFilter, EventStore, Page};
use crate::supervision::Phase;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A page ends when it has this many bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Events read before anything is known of their size.
const FIRST_STEP: usize = 16;
/// Bytes of an event beside its payload, roughly.
const EVENT_FRAME: usize = 300;
/// Longest wait for an event to become readable.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often the store is asked although the end of the log stands still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// First and longest time between two looks of one reader, in a log that moves all the time.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
const MAX_LOOK_PAUSE: Duration = Duration::from_millis(250);

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventListQuery {
    /// Only events of this user.
    #[param(pattern = r"^[^\u0000]*$")]
    user_id: Option<String>,
    /// Only events of this type.
    #[param(pattern = r"^[^\u0000]*$")]
    event_type: Option<String>,
    /// Only events of this session.
    #[param(pattern = r"^[^\u0000]*$")]
    session_id: Option<String>,
    /// Only events that happened at this time or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// Only events that happened before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
    /// Most events on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = r"^[0-9]{1,18}$")]
    cursor: Option<String>,
    /// `latest`: the events as the newest version of their type's schema has them; `sent` if absent.
    #[param(value_type = Option<String>, pattern = "^(sent|latest)$")]
    #[serde(default)]
    schema: SchemaView,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventLookupQuery {
    /// How long to wait for the event to become readable, at most 60s.
    #[param(pattern = r"^(0s|[0-9]{1,4}ms|[1-5]?[0-9]s|60s)$", example = "500ms")]
    wait: Option<String>,
    /// `latest`: the event as the newest version of its type's schema has it; `sent` if absent.
    #[param(value_type = Option<String>, pattern = "^(sent|latest)$")]
    #[serde(default)]
    schema: SchemaView,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
struct EventPage {
    /// The events, the newest first.
    #[schema(value_type = Vec<schema::StoredEventBody>)]
    events: Vec<StoredEvent>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    next: Option<String>,
}

/// List events
///
/// Newest first, by order of arrival. A page ends early when its events are large.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(EventListQuery),
    responses((status = 200, description = "A page of events.", body = EventPage), ListProblems)
)]
pub async fn list_events(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: EventListQuery = parse_query(&request)?;
    let limit = limit(query.limit)?;
    let before = cursor::<u64>(query.cursor)?.map(|id| i64::try_from(id).unwrap_or(i64::MAX));
    let filter = EventFilter {
        user_id: text("userId", query.user_id)?,
        event_type: text("eventType", query.event_type)?,
        session_id: text("sessionId", query.session_id)?,
        from: time("from", query.from)?,
        to: time("to", query.to)?,
    };
    let page = page(&*state.store, &filter, before, limit).await?;
    let schemas = state.settings.get().event_schemas().clone();
    let events = page.events.into_iter();
    Ok(HttpResponse::Ok().json(EventPage {
        events: events
            .map(|event| schemas.viewed(query.schema, event))
            .collect(),
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

/// Get an event
///
/// By its id: the UUID that the event is stored under, or the id that the caller sent, which is looked
/// up within the producer of the caller's API key. A 202 means that an event is durable, not yet
/// that it is readable: `wait` waits for it.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    tag = "events",
    params(
        ("id" = String, Path, description = "The event's id.", example = "order-1001"),
        EventLookupQuery
    ),
    responses(
        (status = 200, description = "The event.", body = schema::StoredEventBody),
        LookupProblems
    )
)]
pub async fn get_event(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: EventLookupQuery = parse_query(&request)?;
    let wait = query
        .wait
        .map(|text| {
            humantime::parse_duration(&text).map_err(|_| {
                Problem::bad_request(format!("wait is {text:?}, but must be a time such as 5s"))
            })
        })
        .transpose()?
        .unwrap_or_default();
    if wait > MAX_WAIT {
        return Err(Problem::bad_request(format!(
            "wait is {}, but at most {}",
            humantime::format_duration(wait),
            humantime::format_duration(MAX_WAIT)
        )));
    }
    let given = path.into_inner();
    let of_caller = id::of_caller(&caller.producer, &given);
    // A derived id, as responses name it, is no caller's id; both are looked up.
    let event_id = id::canonical(&given).unwrap_or(of_caller);
    match find(&state, event_id, of_caller, wait).await? {
        Some(event) => {
            let schemas = state.settings.get().event_schemas().clone();
            Ok(HttpResponse::Ok().json(schemas.viewed(query.schema, event)))
        }
        None => Err(Problem::missing(format!(
            "no event {given} in the log; if it was accepted just now, ask with ?wait=5s"
        ))),
    }
}

/// The event with one of two ids, waiting for the first of them to become readable in this process or
/// another.
async fn find(
    state: &HttpState,
    event_id: Uuid,
    other: Uuid,
    wait: Duration,
) -> Result<Option<StoredEvent>, Problem> {
    if wait.is_zero() {
        // A reader that does not wait must not make an open batch leave early.
        return get(state, event_id, other).await;
    }
    let deadline = tokio::time::Instant::now() + wait;
    let _waiting = state.read_waiters.wait_for(event_id);
    let mut log = state.followers.watch.subscribe();
    let (mut nudged, mut pause) = (false, LOOK_PAUSE);
    loop {
        // Before looking, so that what is written in between is not missed.
        log.mark_unchanged();
        if let Some(event) = get(state, event_id, other).await? {
            return Ok(Some(event));
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() || state.lifecycle.phase() == Phase::Draining {
            return Ok(None);
        }
        if !nudged {
            // The event may lie in this process's open batch, which then goes out at once.
            nudged = state.partitions.nudge();
        }
        // While a store is away the end of its log stands still.
        let moved = tokio::time::timeout(left.min(LOOK_AGAIN), log.changed());
        if let Ok(Err(_)) = moved.await {
            return Ok(None);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(MAX_LOOK_PAUSE);
    }
}

async fn get(
    state: &HttpState,
    event_id: Uuid,
    other: Uuid,
) -> Result<Option<StoredEvent>, Problem> {
    let mut found = state.store.get(event_id).await;
    if other != event_id && matches!(found, Ok(None)) {
        found = state.store.get(other).await;
    }
    found.map_err(|error| unreadable(&error))
}

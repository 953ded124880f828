//! `POST /v1/events`: checks the items, gives each its identity, and responds when all are durable.

use super::HttpState;
use super::auth::Caller;
use super::body;
use super::openapi::problems::IngestProblems;
use super::openapi::schema;
use super::problem::{ItemError, Problem};
use crate::config::auth::Scope;
use crate::event::budget::Permit;
use crate::event::item;
use crate::event::item::{FieldError, Fields, Rules, SchemaViolation};
use crate::event::{Delivery, Event, Outcome, Source, id};
use crate::ingest::http_ingest::Ingest;
use crate::ingest::request;
use crate::retry::retry_supervisor::Unreadable;
use crate::supervision::{Phase, failpoint};
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest `Idempotency-Key` taken.
const MAX_KEY_BYTES: usize = 256;

/// Beyond this many errors, one error per item is reported, to bound the response.
const MANY_ERRORS: usize = 200;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum IngestStatus {
    /// Committed in the store.
    Stored,
    /// Confirmed by the work queue; it becomes readable soon.
    Queued,
    /// The store already has an event of this id.
    Duplicate,
    /// The event breaks the schema of its type, or the store refuses it; it is kept as a dead letter.
    DeadLettered,
}

/// An event that was accepted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AcceptedEvent)]
pub struct IngestedEvent {
    /// The id that the event is stored under.
    pub id: Uuid,
    /// What became of it.
    pub status: IngestStatus,
}

/// The events of an array or of NDJSON, in their order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AcceptedEvents)]
pub struct IngestReply {
    /// Their number.
    pub accepted: usize,
    /// Each event.
    pub items: Vec<IngestedEvent>,
}

/// The event's id and status, or those of each event of an array.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Accepted {
    Event(IngestedEvent),
    Events(IngestReply),
}

/// An id under which the event is stored, and the caller's where it differs.
struct AssignedId {
    id: Uuid,
    original: Option<String>,
}

/// Send events
///
/// The body is one event, an array of events, or one event a line (NDJSON). 202 means that all of
/// them are durable; they are readable soon after. If one is not valid, none is taken, and the
/// response names all errors.
///
/// An event is stored once per id. `id` may be a UUID, which is global, or any other string, which
/// is unique within the producer: the name of the API key. Without an `id`, an `Idempotency-Key`
/// makes a repeat of the whole request safe. Without either, a 503 names the ids that the events
/// were given; a repeat that carries them is safe.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    params(
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the ids of events that have none: a repeat with the same key and the \
                        same items stores nothing twice.",
         min_length = 1, max_length = 256, pattern = r"^[!-~]([\t -~]*[!-~])?$")
    ),
    request_body(
        description = "An event, an array of events, or NDJSON: the events of an array, one a line.",
        content(
            (schema::EventOrEvents = "application/json", examples(
                ("event" = (summary = "One event", value = json!({
                    "userId": "u1", "eventType": "page.view", "eventData": {"path": "/"}}))),
                ("events" = (summary = "Several events", value = json!([
                    {"id": "order-1001", "userId": "u1", "eventType": "order.placed",
                     "eventData": {"total": 12.5}, "sessionId": "s1",
                     "timestamp": "2026-01-31T09:30:00Z"},
                    {"userId": "u2", "eventType": "page.view"}])))
            )),
            (schema::Events = "application/x-ndjson", example = json!([
                {"userId": "u1", "eventType": "page.view"},
                {"userId": "u2", "eventType": "page.view"}]))
        )
    ),
    responses(
        (status = 202, description = "All events are durable.", body = Accepted,
         examples(
            ("event" = (summary = "One event", value = json!({
                "id": "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11", "status": "stored"}))),
            ("events" = (summary = "Several events", value = json!({"accepted": 1, "items": [
                {"id": "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11", "status": "queued"}]})))
         )),
        IngestProblems
    )
)]
pub async fn post_events(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let result = async {
        failpoint::hit("http.post_events");
        let caller = caller?;
        caller.require(Scope::Ingest)?;
        let shape = body::shape(&request)?;
        if state.lifecycle.phase() == Phase::Draining {
            return Err(Problem::unavailable("this process is stopping"));
        }
        let (bytes, permit) = body::read(&state, &request, payload).await?;
        let key = idempotency_key(request.headers())?;
        let sent = read_events(&state, &caller, key, shape, &bytes)?;
        drop(bytes);
        take(&state, sent, key.is_some(), permit).await
    };
    result.await.inspect_err(|problem| {
        state
            .metrics
            .refused
            .with_label_values(&[problem.reason()])
            .inc_by(problem.events());
    })
}

/// The events of a request.
#[derive(Default)]
pub(super) struct SentEvents {
    pub(super) events: Vec<Event>,
    /// Those that break the schema of their type and are to be dead letters, by their index.
    pub(super) quarantined: HashMap<usize, Box<SchemaViolation>>,
    /// The body was one event alone.
    pub(super) single: bool,
}

/// Makes events durable and answers.
///
/// # Errors
/// 503 if they are not known to be durable.
pub(super) async fn take(
    state: &HttpState,
    sent: SentEvents,
    keyed: bool,
    mut permit: Permit,
) -> Result<HttpResponse, Problem> {
    let SentEvents {
        events,
        mut quarantined,
        single,
    } = sent;
    let ids: Vec<AssignedId> = events
        .iter()
        .map(|event| AssignedId {
            id: event.event_id,
            original: event.original_id.clone(),
        })
        .collect();
    let refused = |problem: Problem| repeatable(problem, &ids, keyed);
    let weight = events.iter().map(Event::footprint).sum();
    if let Err(away) = state.admission.check() {
        let problem = Problem::unavailable(format!("{away}; repeat the request"));
        return Err(refused(problem.after(away.retry_after)));
    }
    // From here on the events are charged for themselves, no longer for the body.
    if !permit.try_resize(weight) {
        let detail = "more events are in flight than ingest.max_in_flight allows";
        return Err(refused(Problem::overloaded(detail)));
    }
    state.accepted.inc_by(events.len() as u64);
    let accounts = state.metrics.accounting.ingest.clone();
    let completions = Some(state.completions.clone());
    let (deliveries, outcomes) = request::open(events, accounts, permit, completions);
    let (held, deliveries): (Vec<_>, Vec<_>) = deliveries
        .into_iter()
        .enumerate()
        .map(|(index, delivery)| (delivery, quarantined.remove(&index)))
        .partition(|(_, violation)| violation.is_some());
    let deliveries: Vec<_> = deliveries
        .into_iter()
        .map(|(delivery, _)| delivery)
        .collect();
    if !deliveries.is_empty() {
        // If the mailbox is full the message is dropped here, and its tickets settle the request.
        drop(state.ingest.try_send(Ingest(deliveries)));
    }
    let timeout = state.settings.get().ingest.timeout;
    let settled = async {
        for (delivery, violation) in held {
            if let Some(violation) = violation {
                quarantine(state, delivery, &violation).await;
            }
        }
        outcomes.await
    };
    match tokio::time::timeout(timeout, settled).await {
        Ok(Ok(outcomes)) => respond(&outcomes, &ids, single).map_err(refused),
        Ok(Err(_)) | Err(_) => Err(refused(Problem::unavailable(format!(
            "not known to be durable after {}; repeat the request",
            humantime::format_duration(timeout)
        )))),
    }
}

/// Hands an event over to become a dead letter. Where that does not happen its ticket settles it as refused.
async fn quarantine(state: &HttpState, delivery: Delivery, violation: &SchemaViolation) {
    let labels = [violation.event_type.as_str(), "dead_lettered"];
    state
        .metrics
        .schema_invalid
        .with_label_values(&labels)
        .inc();
    match Unreadable::of_event(delivery, violation.to_string()) {
        // Awaiting the answer bounds what waits to one event of a request.
        Ok(unreadable) => {
            if let Err(rejected) = state.retry.try_send(unreadable)
                && state.retry.send(rejected.into_message()).await.is_err()
            {
                tracing::warn!(
                    "the retry supervisor crashed; the caller is told to repeat the event"
                );
            }
        }
        Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
    }
}

/// Adds to a 503 the ids that make a repeat safe: those that the caller sent, and new ones. With an
/// `Idempotency-Key` there are none to add, since a repeat with the same key gets the same ids.
fn repeatable(problem: Problem, ids: &[AssignedId], keyed: bool) -> Problem {
    let problem = problem.of_events(ids.len());
    if keyed {
        return problem;
    }
    let id = |id: &AssignedId| id.original.clone().unwrap_or_else(|| id.id.to_string());
    problem.with_ids(ids.iter().map(id).collect())
}

/// All events of the body, or all its errors.
fn read_events(
    state: &HttpState,
    caller: &Caller,
    key: Option<&str>,
    shape: body::Shape,
    bytes: &[u8],
) -> Result<SentEvents, Problem> {
    let (limits, max_items, max_event_bytes) = {
        let settings = state.settings.get();
        let max_event_bytes = settings.max_event_bytes();
        (
            settings.item_limits(),
            settings.http.max_items,
            max_event_bytes,
        )
    };
    let body::Items { items, single } = body::items(bytes, shape, max_items)?;
    let now = item::now();
    let count = items.len();
    let mut sent = SentEvents {
        events: Vec::with_capacity(count),
        single,
        ..SentEvents::default()
    };
    let mut errors = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        if let Some(most) = max_event_bytes.filter(|most| item.bytes() > *most) {
            return Err(Problem::too_large(format!(
                "item {index} has {} bytes; with broker.order = \"user\" a single event may have at \
                 most {most} (broker.max_message_bytes)",
                item.bytes()
            )));
        }
        let event = item::check(item, &limits, Rules::HTTP).and_then(|mut fields| {
            let (event_id, original) = identity(&mut fields, caller, key, index, |given| {
                item::resolve_id(given, &caller.producer, now, limits.accept_days)
            })?;
            let producer = caller.producer.clone();
            let quarantined = fields.quarantined.take();
            let event = fields.into_event(event_id, original, producer, Source::Http, now);
            Ok((event, quarantined))
        });
        match event {
            Ok((event, violation)) => {
                sent.quarantined
                    .extend(violation.map(|violation| (index, violation)));
                sent.events.push(event);
            }
            Err(flaws) => {
                if let Some(violation) = flaws.iter().find_map(|flaw| flaw.schema.as_ref()) {
                    let labels = [violation.event_type.as_str(), "refused"];
                    state
                        .metrics
                        .schema_invalid
                        .with_label_values(&labels)
                        .inc();
                }
                // Every bad item is reported, but not all errors of each when there are many.
                let most = if errors.len() < MANY_ERRORS {
                    usize::MAX
                } else {
                    1
                };
                let flaws = flaws.into_iter().take(most);
                errors.extend(flaws.map(|flaw| ItemError { index, flaw }));
            }
        }
    }
    if errors.is_empty() {
        Ok(sent)
    } else {
        Err(Problem::invalid_items(errors, count))
    }
}

/// The caller's id, else one of the request's key, else a new one.
fn identity(
    fields: &mut Fields,
    caller: &Caller,
    key: Option<&str>,
    index: usize,
    resolve: impl FnOnce(String) -> Result<(Uuid, Option<String>), String>,
) -> Result<(Uuid, Option<String>), Vec<FieldError>> {
    match (fields.id.take(), key) {
        (Some(given), _) => resolve(given).map_err(|reason| vec![FieldError::new("id", reason)]),
        (None, Some(key)) => Ok((id::of_idempotency_key(&caller.producer, key, index), None)),
        (None, None) => Ok((id::fresh(), None)),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .map(str::trim)
        .filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES)
        .map(Some)
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "Idempotency-Key must be 1 to {MAX_KEY_BYTES} visible ASCII characters"
            ))
        })
}

/// 202 when every event is durable, else the response to the worst outcome.
fn respond(
    outcomes: &[Outcome],
    ids: &[AssignedId],
    single: bool,
) -> Result<HttpResponse, Problem> {
    if !outcomes.iter().all(|outcome| outcome.is_durable()) {
        return Err(Problem::unavailable(
            "not made durable; repeat the request; what is stored already is not stored twice",
        ));
    }
    let mut items = outcomes.iter().zip(ids).map(|(outcome, id)| IngestedEvent {
        id: id.id,
        status: match outcome {
            Outcome::Published => IngestStatus::Queued,
            Outcome::Duplicate => IngestStatus::Duplicate,
            Outcome::DeadLettered(_) => IngestStatus::DeadLettered,
            _ => IngestStatus::Stored,
        },
    });
    if single && let Some(one) = items.next() {
        return Ok(HttpResponse::Accepted().json(one));
    }
    let items: Vec<IngestedEvent> = items.collect();
    Ok(HttpResponse::Accepted().json(IngestReply {
        accepted: items.len(),
        items,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::ResponseError;
    use actix_web::body::to_bytes;
    use futures::FutureExt;
    use serde_json::{Value, json};

    fn told(problem: &Problem) -> Value {
        let body = to_bytes(problem.error_response().into_body());
        serde_json::from_slice(&body.now_or_never().unwrap().unwrap()).unwrap()
    }

    /// The event id in the place of the caller's would make another event of a repeat.
    #[test]
    fn a_503_names_ids_with_which_a_repeat_is_the_same_events() {
        let fresh = id::fresh();
        let ids = [
            AssignedId {
                id: id::of_producer("shop", "order-1"),
                original: Some("order-1".to_owned()),
            },
            AssignedId {
                id: fresh,
                original: None,
            },
        ];
        let problem = repeatable(Problem::unavailable("no"), &ids, false);
        assert_eq!(told(&problem)["ids"], json!(["order-1", fresh]));
        assert_eq!(problem.events(), 2);
        let problem = repeatable(Problem::unavailable("no"), &ids, true);
        assert!(told(&problem).get("ids").is_none());
        assert_eq!(problem.events(), 2);
    }
}

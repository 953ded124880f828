//! `POST /v1/events`: checks the items, gives each its identity, and answers when all are durable.

use super::HttpState;
use super::auth::Caller;
use super::body;
use super::problem::{ItemError, Problem};
use crate::actors::http_ingest::Ingest;
use crate::config::auth::Scope;
use crate::event::item::{self, FieldError, Fields, Rules};
use crate::event::outcome::Refusal;
use crate::event::{Event, Outcome, Source, id, request};
use crate::supervision::{Permit, Phase, failpoint};
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use uuid::Uuid;

/// Longest `Idempotency-Key` taken.
const MAX_KEY_BYTES: usize = 256;

/// From so many errors on only the first of each item is told: an answer must not be many times as large
/// as what it answers.
const MANY_ERRORS: usize = 200;

/// What became of an item.
#[derive(Serialize)]
struct Taken {
    id: Uuid,
    status: &'static str,
}

#[derive(Serialize)]
struct TakenList {
    accepted: usize,
    items: Vec<Taken>,
}

/// `POST /v1/events`
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
        let (events, single) = read_events(&state, &caller, request.headers(), shape, &bytes)?;
        drop(bytes);
        take(&state, events, single, permit).await
    };
    result.await.inspect_err(|problem| {
        state
            .metrics
            .refused
            .with_label_values(&[problem.reason()])
            .inc_by(problem.events());
    })
}

async fn take(
    state: &HttpState,
    events: Vec<Event>,
    single: bool,
    mut permit: Permit,
) -> Result<HttpResponse, Problem> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    let weight = events.iter().map(Event::footprint).sum();
    state
        .doors
        .check()
        .map_err(|problem| problem.with_ids(ids.clone()))?;
    // From here on the events are charged for themselves, no longer for the body.
    if !permit.try_resize(weight) {
        let detail = "more events are on their way than ingest.max_in_flight allows";
        return Err(Problem::overloaded(detail).with_ids(ids));
    }
    state.accepted.inc_by(events.len() as u64);
    let accounts = state.metrics.ledgers.intake.clone();
    let completions = Some(state.completions.clone());
    let (deliveries, outcomes) = request::open(events, accounts, permit, completions);
    // If the mailbox is full the message is dropped here, and its tickets answer for it.
    drop(state.ingest.try_send(Ingest(deliveries)));
    let patience = state.settings.get().ingest.timeout;
    let outcomes = match tokio::time::timeout(patience, outcomes).await {
        Ok(Ok(outcomes)) => outcomes,
        Ok(Err(_)) | Err(_) => {
            return Err(Problem::unavailable(format!(
                "not known to be durable after {}; repeat the request with these ids",
                humantime::format_duration(patience)
            ))
            .with_ids(ids));
        }
    };
    answer(&outcomes, ids, single)
}

/// All events of the body, or everything that is wrong with it.
fn read_events(
    state: &HttpState,
    caller: &Caller,
    headers: &HeaderMap,
    shape: body::Shape,
    bytes: &[u8],
) -> Result<(Vec<Event>, bool), Problem> {
    let (limits, max_items, max_event_bytes) = {
        let settings = state.settings.get();
        let max_event_bytes = settings.max_event_bytes();
        (
            settings.item_limits(),
            settings.http.max_items,
            max_event_bytes,
        )
    };
    let key = idempotency_key(headers)?;
    let body::Items { items, single } = body::items(bytes, shape, max_items)?;
    let now = item::now();
    let count = items.len();
    let mut events = Vec::with_capacity(count);
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
            Ok(fields.into_event(event_id, original, producer, Source::Http, now))
        });
        match event {
            Ok(event) => events.push(event),
            Err(flaws) => {
                // Every bad item is told, but not all of each when there are many.
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
        Ok((events, single))
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

/// 202 when every event is durable, else what the worst of them asks for.
fn answer(outcomes: &[Outcome], ids: Vec<Uuid>, single: bool) -> Result<HttpResponse, Problem> {
    let repeat = "repeat the request with these ids; what is stored already stays stored once";
    for outcome in outcomes {
        match outcome {
            Outcome::Refused(Refusal::Overloaded) => {
                return Err(Problem::overloaded(format!("no room; {repeat}")).with_ids(ids));
            }
            Outcome::Refused(Refusal::Unavailable) | Outcome::Returned => {
                return Err(
                    Problem::unavailable(format!("not made durable; {repeat}")).with_ids(ids)
                );
            }
            _ => {}
        }
    }
    let mut taken = outcomes.iter().zip(ids).map(|(outcome, id)| Taken {
        id,
        status: match outcome {
            Outcome::Published => "queued",
            Outcome::Duplicate => "duplicate",
            Outcome::DeadLettered(_) => "deadLettered",
            _ => "stored",
        },
    });
    if single && let Some(one) = taken.next() {
        return Ok(HttpResponse::Accepted().json(one));
    }
    let items: Vec<Taken> = taken.collect();
    Ok(HttpResponse::Accepted().json(TakenList {
        accepted: items.len(),
        items,
    }))
}

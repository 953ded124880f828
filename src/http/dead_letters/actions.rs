//! `POST /v1/dead-letters/replay` and `POST /v1/dead-letters/purge`.
//!
//! Both work for a bounded time and say where to go on, so that no request hangs for as long as a
//! large replay takes. Repeating one is safe.

use super::super::HttpState;
use super::super::auth::Caller;
use super::super::body;
use super::super::problem::Problem;
use super::super::queries::unreadable;
use super::{Parts, filter};
use crate::config::auth::Scope;
use crate::retry::purge::purge;
use crate::retry::replay::{NotReplayed, Replay};
use crate::store::dead_letters::{LetterFilter, LetterState};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long one request replays before it answers with a cursor.
const TIME: Duration = Duration::from_secs(20);
/// Letters that one request purges unless asked otherwise, and at most.
const PURGE_LIMIT: u64 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplayBody {
    ids: Option<Vec<Uuid>>,
    cause: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    state: Option<String>,
    limit: Option<u64>,
    rate_per_second: Option<u32>,
    cursor: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PurgeBody {
    ids: Option<Vec<Uuid>>,
    cause: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    state: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplayAnswer {
    dry_run: bool,
    /// Letters that passed the filter when this request came.
    matched: u64,
    replayed: u64,
    failed: u64,
    failures: Vec<NotReplayed>,
    /// Give this as `cursor` to go on; null when there is nothing left.
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PurgeAnswer {
    dry_run: bool,
    /// Letters that passed the filter when this request came.
    matched: u64,
    purged: u64,
}

/// `POST /v1/dead-letters/replay`
pub async fn post_replay(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: ReplayBody = read(&request, &state, payload).await?;
    let cursor = body
        .cursor
        .map(|cursor| {
            cursor.parse().map_err(|()| {
                Problem::bad_request("cursor must be the `next` of an earlier answer, as it was")
            })
        })
        .transpose()?;
    let mut filter = filter(Parts {
        ids: body.ids,
        cause: body.cause,
        event_type: body.event_type,
        from: body.from,
        to: body.to,
        state: body.state,
    })?;
    filter.state.get_or_insert(LetterState::Dead);
    let matched = matching(&state, &filter).await?;
    let replay = Replay {
        filter,
        cursor,
        limit: body.limit,
        rate: body.rate_per_second,
        dry_run: body.dry_run,
        time: Some(TIME),
    };
    let report = state.replayer.run(&replay, |_| {}).await;
    let report = report.map_err(|error| unreadable(&error))?;
    tracing::info!(
        replayed = report.replayed,
        failed = report.failed,
        dry_run = replay.dry_run,
        stopped = report.stopped,
        "dead letters replayed"
    );
    if let Some(reason) = report.stopped {
        return Err(Problem::unavailable(format!(
            "{} replayed, then: {reason}; repeat the request to go on",
            report.replayed
        )));
    }
    Ok(HttpResponse::Ok().json(ReplayAnswer {
        dry_run: replay.dry_run,
        matched,
        replayed: report.replayed,
        failed: report.failed,
        failures: report.failures,
        next: report.next.map(|next| next.to_string()),
    }))
}

/// `POST /v1/dead-letters/purge`
pub async fn post_purge(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: PurgeBody = read(&request, &state, payload).await?;
    let filter = filter(Parts {
        ids: body.ids,
        cause: body.cause,
        event_type: body.event_type,
        from: body.from,
        to: body.to,
        state: body.state,
    })?;
    if filter == LetterFilter::default() && !body.all {
        return Err(Problem::bad_request(
            "say which letters to delete: ids, cause, eventType, from, to or state; or \
             \"all\": true",
        ));
    }
    let limit = body.limit.unwrap_or(PURGE_LIMIT).min(PURGE_LIMIT);
    let matched = matching(&state, &filter).await?;
    let purged = if body.dry_run {
        0
    } else {
        let purged = purge(&*state.letters, &filter, limit, |_| {}).await;
        purged.map_err(|error| unreadable(&error))?
    };
    tracing::info!(
        matched,
        purged,
        dry_run = body.dry_run,
        "dead letters purged"
    );
    Ok(HttpResponse::Ok().json(PurgeAnswer {
        dry_run: body.dry_run,
        matched,
        purged,
    }))
}

async fn matching(state: &HttpState, filter: &LetterFilter) -> Result<u64, Problem> {
    let count = state.letters.count_letters(filter).await;
    count.map_err(|error| unreadable(&error))
}

async fn read<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
    state: &HttpState,
    payload: web::Payload,
) -> Result<T, Problem> {
    if body::shape(request)? != body::Shape::Json {
        return Err(Problem::unsupported("the body must be one JSON object"));
    }
    let (bytes, _permit) = body::read(state, request, payload).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))
}

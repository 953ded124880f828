//! `POST /v1/dead-letters/replay` and `POST /v1/dead-letters/purge`.
//!
//! Both do a bounded part of the work and say whether more is left, so that no request takes as long
//! as a large replay. Repeating one is safe.

use super::{FilterParts, filter};
use crate::config::auth::Scope;
use crate::dead_letters::purge::purge;
use crate::dead_letters::replay::{NotReplayed, Replay};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::listing::{cursor, unreadable, work_limit};
use crate::http::openapi::problems::ActionProblems;
use crate::http::openapi::schema;
use crate::http::problem::Problem;
use crate::store::dead_letters::{DeadLetterFilter, DeadLetterState};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long one request replays before it responds with a cursor.
const TIME: Duration = Duration::from_secs(20);
/// Most dead letters that one request replays, as [`body::whole`] reads it, and that one purges.
const REPLAY_LIMIT: u64 = i32::MAX as u64;
const PURGE_LIMIT: u64 = 10_000;

/// Which dead letters to replay, and how. Parts that are not given do not filter.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplayBody {
    /// Only these dead letters.
    #[schema(max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Only those with this cause.
    #[schema(value_type = Option<schema::CauseWord>)]
    cause: Option<String>,
    /// Only events of this type.
    #[schema(pattern = r"^[^\u0000]*$")]
    event_type: Option<String>,
    /// Only those that failed last at this time or later (RFC 3339).
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only those that failed last before this time (RFC 3339).
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Only those in this state; `dead` unless given.
    #[schema(value_type = Option<schema::StateWord>)]
    state: Option<String>,
    /// Most dead letters to replay.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 1, maximum = 2147483647)]
    limit: Option<u32>,
    /// Dead letters a second; 0 is unlimited. `dead_letters.replay_rate` unless given.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 0, maximum = 2147483647)]
    rate_per_second: Option<u32>,
    /// The `next` of an earlier response.
    #[schema(
        pattern = r"^(-?[0-9]{1,17}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?_-?[0-9]{1,17}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
    )]
    cursor: Option<String>,
    /// Read the dead letters, and replay none.
    #[serde(default)]
    dry_run: bool,
}

/// Which dead letters to delete. Without any filter, `all` must be true.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PurgeBody {
    /// Only these dead letters.
    #[schema(max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Only those with this cause.
    #[schema(value_type = Option<schema::CauseWord>)]
    cause: Option<String>,
    /// Only events of this type.
    #[schema(pattern = r"^[^\u0000]*$")]
    event_type: Option<String>,
    /// Only those that failed last at this time or later (RFC 3339).
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only those that failed last before this time (RFC 3339).
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Only those in this state.
    #[schema(value_type = Option<schema::StateWord>)]
    state: Option<String>,
    /// Most dead letters to delete.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 1, maximum = 10000, default = 10000)]
    limit: Option<u32>,
    /// Confirms that all are to be deleted.
    #[serde(default)]
    all: bool,
    /// Count them, and delete none.
    #[serde(default)]
    dry_run: bool,
}

/// What a replay has done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReply {
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Dead letters that match the filter.
    pub matched: u64,
    /// Dead letters whose events are durable now; on a dry run, those that would be sent.
    pub replayed: u64,
    /// Dead letters that failed again.
    pub failed: u64,
    /// The first of those that failed.
    #[schema(value_type = Vec<schema::ReplayFailure>)]
    pub failures: Vec<NotReplayed>,
    /// The `cursor` with which to continue; null when nothing is left.
    #[schema(required)]
    pub next: Option<String>,
}

/// What a purge has done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurgeReply {
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Dead letters that match the filter.
    pub matched: u64,
    /// Dead letters that were deleted.
    pub purged: u64,
}

/// Replay dead letters
///
/// Sends dead letters through the flow again, the oldest first, for at most 20 s; `next` continues.
/// Those that fail again remain, with their history. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replay",
    tag = "dead letters",
    request_body(content = ReplayBody, example = json!({"cause": "poison", "limit": 100})),
    responses(
        (status = 200, description = "What was replayed.", body = ReplayReply,
         example = json!({"dryRun": false, "matched": 2, "replayed": 1, "failed": 1,
             "failures": [{"id": "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11", "reason": "poison"}],
             "next": null})),
        ActionProblems
    )
)]
pub async fn post_replay(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: ReplayBody = body::object(&request, &state, payload).await?;
    let cursor = cursor(body.cursor)?;
    let mut filter = filter(FilterParts {
        ids: body.ids,
        cause: body.cause,
        event_type: body.event_type,
        from: body.from,
        to: body.to,
        state: body.state,
    })?;
    filter.state.get_or_insert(DeadLetterState::Dead);
    let matched = matching(&state, &filter).await?;
    let replay = Replay {
        filter,
        cursor,
        limit: work_limit(body.limit, REPLAY_LIMIT)?,
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
    Ok(HttpResponse::Ok().json(ReplayReply {
        dry_run: replay.dry_run,
        matched,
        replayed: report.replayed,
        failed: report.failed,
        failures: report.failures,
        next: report.next.map(|next| next.to_string()),
    }))
}

/// Delete dead letters
///
/// Deletes dead letters for good, the oldest first. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/purge",
    tag = "dead letters",
    request_body(content = PurgeBody, example = json!({"state": "replayed"})),
    responses(
        (status = 200, description = "What was deleted.", body = PurgeReply,
         example = json!({"dryRun": false, "matched": 3, "purged": 3})),
        ActionProblems
    )
)]
pub async fn post_purge(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: PurgeBody = body::object(&request, &state, payload).await?;
    let filter = filter(FilterParts {
        ids: body.ids,
        cause: body.cause,
        event_type: body.event_type,
        from: body.from,
        to: body.to,
        state: body.state,
    })?;
    if filter == DeadLetterFilter::default() && !body.all {
        return Err(Problem::bad_request(
            "say which dead letters to delete: ids, cause, eventType, from, to or state; or \
             \"all\": true",
        ));
    }
    let limit = work_limit(body.limit, PURGE_LIMIT)?.unwrap_or(PURGE_LIMIT);
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
    Ok(HttpResponse::Ok().json(PurgeReply {
        dry_run: body.dry_run,
        matched,
        purged,
    }))
}

async fn matching(state: &HttpState, filter: &DeadLetterFilter) -> Result<u64, Problem> {
    let count = state.letters.count_letters(filter).await;
    count.map_err(|error| unreadable(&error))
}

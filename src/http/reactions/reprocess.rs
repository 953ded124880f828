//! `POST /v1/reactions/reprocess`: a bounded part of the work, and whether more is left.

use super::runs::run_status;
use super::{RESTART, reaction};
use crate::config::auth::Scope;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::commands::not_done;
use crate::http::listing::{check_generation, cursor, text, time, work_limit};
use crate::http::openapi::problems::ReprocessProblems;
use crate::http::problem::Problem;
use crate::reactions::runs::{ReprocessCursor, Reprocessing, RunStatus, reprocess};
use crate::supervision::Phase;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// How long one request works before it responds with a cursor.
const TIME: Duration = Duration::from_secs(20);
/// Most runs of one request, as [`body::whole`] reads it.
const LIMIT: u64 = i32::MAX as u64;

/// Which runs to make again, and how. Parts that are not given do not filter.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReprocessBody {
    /// The reaction's name.
    reaction: String,
    /// Only runs of events of this type.
    #[schema(pattern = r"^[^\u0000]*$")]
    event_type: Option<String>,
    /// Only runs with this status; `FAILED` unless given. What is `PENDING` is made anyway.
    #[schema(value_type = Option<EndedStatusWord>)]
    status: Option<String>,
    /// Only runs of events that the log took in at this time or later (RFC 3339).
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only runs of events that the log took in before this time (RFC 3339).
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Read the runs, and change none.
    #[serde(default)]
    dry_run: bool,
    /// Most runs to make again.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 1, maximum = 2147483647)]
    limit: Option<u32>,
    /// How many runs become due in a second; 0 is unlimited.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 0, maximum = 2147483647, default = 0)]
    rate_per_second: Option<u32>,
    /// The `next` of an earlier response.
    #[schema(pattern = r"^[0-9]{1,9}-[0-9]{1,18}-[0-9]{1,18}-[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// How a run has ended.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE", as = EndedRunStatus)]
#[expect(
    dead_code,
    reason = "this type describes JSON in the OpenAPI document, and has no values"
)]
enum EndedStatusWord {
    Failed,
    Success,
}

/// What a part of a reprocessing has done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReprocessReply {
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Runs that match.
    pub matched: u64,
    /// Runs that will be made again; on a dry run, those that would be.
    pub reprocessed: u64,
    /// Runs whose events are no longer in the log, so that they cannot be made again. With an `eventType` none is
    /// counted, since theirs is not known.
    pub gone: u64,
    /// The `cursor` with which to continue; null when nothing is left.
    #[schema(required)]
    pub next: Option<String>,
}

/// Make runs again
///
/// Runs that have ended become due again, those of the oldest events first, and get as many attempts as before. A
/// request takes at most 20 s; `next` continues. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/reactions/reprocess",
    tag = "reactions",
    request_body(content = ReprocessBody, example = json!({"reaction": "welcome-mail", "limit": 100})),
    responses(
        (status = 200, description = "What was done.", body = ReprocessReply,
         example = json!({"dryRun": false, "matched": 3, "reprocessed": 2, "gone": 1, "next": null})),
        ReprocessProblems
    )
)]
pub async fn post_reprocess(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: ReprocessBody = body::object(&request, &state, payload).await?;
    let cursor: Option<ReprocessCursor> = cursor(body.cursor)?;
    let what = Reprocessing {
        status: status(body.status)?,
        event_type: text("eventType", body.event_type)?,
        from: time("from", body.from)?,
        to: time("to", body.to)?,
        limit: work_limit(body.limit, LIMIT)?,
        rate: body.rate_per_second.unwrap_or(0),
        dry_run: body.dry_run,
        cursor,
        time: Some(TIME),
    };
    let reaction = reaction(&state, &body.reaction).await?;
    if let Some(cursor) = cursor {
        let what = format_args!("the cursor {cursor}");
        check_generation(&state, what, cursor.generation, RESTART).await?;
    }
    let is_serving = |_: &_| state.lifecycle.phase() < Phase::Draining;
    let done = reprocess(&*state.whole, &reaction, &what, is_serving).await;
    let done = done.map_err(|error| not_done(&error))?;
    tracing::info!(
        reaction = reaction.name,
        reprocessed = done.reprocessed,
        gone = done.gone,
        dry_run = what.dry_run,
        stopped = done.stopped,
        "runs reprocessed"
    );
    if done.reprocessed > 0 && !what.dry_run {
        state.followers.watch.command();
    }
    Ok(HttpResponse::Ok().json(ReprocessReply {
        dry_run: what.dry_run,
        matched: done.matched,
        reprocessed: done.reprocessed,
        gone: done.gone,
        next: done.next.map(|next| next.to_string()),
    }))
}

fn status(word: Option<String>) -> Result<RunStatus, Problem> {
    let Some(word) = word else {
        return Ok(RunStatus::Failed);
    };
    match run_status("status", &word)? {
        RunStatus::Pending => Err(Problem::bad_request(
            "status is PENDING, but such runs are made anyway; it must be FAILED or SUCCESS",
        )),
        ended => Ok(ended),
    }
}

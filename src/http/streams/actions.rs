//! What collectors and operators do to messages and sessions besides collecting.

use super::call::{KeyPath, TokenPath, done, returned};
use super::{failed, keyed, show};
use crate::config::auth::Scope;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::openapi::problems::{StreamActionProblems, StreamCommandProblems};
use crate::http::problem::Problem;
use crate::http::streams::view::PlaceView;
use crate::store::streams::Which;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest delay and lease.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// What is given back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NackBody {
    /// Ids of messages of the last answer; all of them if absent.
    ids: Option<Vec<Uuid>>,
    /// When they may be handed out again: at most 12 h.
    #[schema(
        default = "0s",
        example = "30s",
        pattern = r"^([0-9]{1,2}[sm]|([0-9]|1[0-2])h)$"
    )]
    delay: Option<String>,
}

/// How long the session lives.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExtendBody {
    /// From now on: at most 12 h.
    #[schema(example = "5m", pattern = r"^([0-9]{1,2}[sm]|([0-9]|1[0-2])h)$")]
    lease: String,
}

/// What was done.
#[derive(Serialize, ToSchema)]
struct Returned {
    /// Messages that returned.
    returned: u32,
}

fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    let parsed = humantime::parse_duration(text).ok();
    parsed
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "{name} is {text:?}, but must be a duration such as \"30s\", of at most 12h"
            ))
        })
}

/// Give messages back
///
/// Messages of the last answer return to the stream and are handed out again after the delay; the next call
/// acknowledges the others. Needs the scope `collect`.
#[utoipa::path(
    post,
    path = "/v1/streams/{stream}/{key}/{token}/nack",
    tag = "streams",
    params(TokenPath),
    request_body = NackBody,
    responses((status = 200, description = "How many returned.", body = Returned), StreamActionProblems)
)]
pub async fn nack(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<TokenPath>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.require_place(&at.stream, &at.key)?;
    let declared = keyed(&state, &at.stream, &at.key)?;
    let body: NackBody = body::object(&request, &state, payload).await?;
    let delay = duration("delay", body.delay.as_deref().unwrap_or("0s"))?;
    let which = body.ids.map_or(Which::All, Which::Events);
    let polled = state
        .polls
        .refuse(declared, &at.key, &at.token, which, delay)
        .await;
    let returned = returned(polled, &at.key)?;
    Ok(HttpResponse::Ok().json(Returned { returned }))
}

/// Keep a session alive
///
/// The session lives for the given time from now on, without a call. Needs the scope `collect`.
#[utoipa::path(
    post,
    path = "/v1/streams/{stream}/{key}/{token}/extend",
    tag = "streams",
    params(TokenPath),
    request_body = ExtendBody,
    responses((status = 200, description = "The empty object.", body = serde_json::Value), StreamActionProblems)
)]
pub async fn extend(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<TokenPath>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.require_place(&at.stream, &at.key)?;
    let declared = keyed(&state, &at.stream, &at.key)?;
    let body: ExtendBody = body::object(&request, &state, payload).await?;
    let lease = duration("lease", &body.lease)?;
    let polled = state
        .polls
        .extend(declared, &at.key, &at.token, lease)
        .await;
    done(polled, &at.key)
}

/// Which sessions are ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    /// The session's number; all of the key if absent.
    session: Option<i64>,
}

/// End sessions of a key
///
/// What they have not acknowledged is handed out again. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/streams/{stream}/{key}/release",
    tag = "streams",
    params(KeyPath),
    request_body = ReleaseBody,
    responses((status = 200, description = "The key.", body = PlaceView), StreamCommandProblems)
)]
pub async fn release(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<KeyPath>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    let KeyPath { stream, key } = at.into_inner();
    let declared = keyed(&state, &stream, &key)?;
    let body: ReleaseBody = body::object(&request, &state, payload).await?;
    let released = state.polls.release(declared, &key, body.session).await;
    released.map_err(|error| failed(&error))?;
    tracing::info!(stream, key, session = body.session, "sessions released");
    show(&state, declared, &key).await
}

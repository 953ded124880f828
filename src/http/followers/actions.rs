//! Commands to followers.

use super::show;
use super::view::{FollowerView, OutsidePosition};
use crate::config::auth::Scope;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::commands::obeyed;
use crate::http::listing::check_generation;
use crate::http::openapi::problems::FollowerProblems;
use crate::http::problem::Problem;
use crate::store::followers::FollowerCommand;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;

/// How to rebuild.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RebuildBody {
    /// Rebuild also if the retention has removed events; `completeSince` then says from which day on the
    /// follower is complete.
    #[serde(default)]
    accept_truncated: bool,
}

/// Where to go on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SkipBody {
    /// The position behind which the follower goes on; events up to it are not applied.
    #[schema(pattern = r"^[0-9]{1,9}-[0-9]{1,18}$", example = "1-8191")]
    to: String,
}

/// Pause a follower
///
/// It stops after the chunk in hand. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/followers/{name}/pause",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    responses((status = 200, description = "The follower.", body = FollowerView), FollowerProblems)
)]
pub async fn pause(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    obey(&state, &path, FollowerCommand::Pause).await
}

/// Resume a follower
///
/// One that is paused, broken or gapped goes on from its position; a gapped one without the events that
/// are gone. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/followers/{name}/resume",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    responses((status = 200, description = "The follower.", body = FollowerView), FollowerProblems)
)]
pub async fn resume(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    obey(&state, &path, FollowerCommand::Resume).await
}

/// Rebuild a follower
///
/// It forgets all that it has applied and begins again with the first event that the log has. Needs the
/// scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/followers/{name}/rebuild",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    request_body(content = RebuildBody, example = json!({"acceptTruncated": false})),
    responses((status = 200, description = "The follower.", body = FollowerView), FollowerProblems)
)]
pub async fn rebuild(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: RebuildBody = body::object(&request, &state, payload).await?;
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: body.accept_truncated,
    };
    obey(&state, &path, rebuild).await
}

/// Skip events
///
/// The follower goes on behind a position. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/followers/{name}/skip",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    request_body(content = SkipBody),
    responses((status = 200, description = "The follower.", body = FollowerView), FollowerProblems)
)]
pub async fn skip(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: SkipBody = body::object(&request, &state, payload).await?;
    let to: OutsidePosition = body.to.parse().map_err(Problem::bad_request)?;
    let what = format_args!("position {to}");
    let advice = "take a position of GET /v1/followers";
    check_generation(&state, what, to.generation, advice).await?;
    obey(&state, &path, FollowerCommand::Skip(to.position)).await
}

/// Remove a follower
///
/// Forgets its position. No process may run it. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/followers/{name}/remove",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    responses((status = 204, description = "It is removed."), FollowerProblems)
)]
pub async fn remove(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    command(&state, &path, FollowerCommand::Remove).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Carries out a command and shows the follower.
async fn obey(
    state: &HttpState,
    name: &str,
    given: FollowerCommand,
) -> Result<HttpResponse, Problem> {
    command(state, name, given).await?;
    show(state, name).await
}

async fn command(state: &HttpState, name: &str, command: FollowerCommand) -> Result<(), Problem> {
    let done = state.follower_store.command(name, command).await;
    obeyed(state, done, || Problem::unknown("follower", name))?;
    tracing::info!(follower = name, ?command, "follower commanded");
    Ok(())
}

//! Commands to reactions and to single runs.

use super::view::{ReactionView, RunView};
use super::{known_name, runs, show};
use crate::config::auth::Scope;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::commands::obeyed;
use crate::http::openapi::problems::CommandProblems;
use crate::http::problem::Problem;
use crate::reactions::runs::{RunId, cancel as cancel_run};
use actix_web::{HttpResponse, web};

/// Pause a reaction
///
/// Attempts that are under way end. No other is started, and its runs stay `PENDING`. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/reactions/{name}/pause",
    tag = "reactions",
    params(("name" = String, Path, description = "The reaction's name.", example = "welcome-mail")),
    responses((status = 200, description = "The reaction.", body = ReactionView), CommandProblems)
)]
pub async fn pause(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    pause_or_resume(&state, &caller, &path, true).await
}

/// Resume a reaction
///
/// One that is paused goes on, and so do lanes that are broken or gapped. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/reactions/{name}/resume",
    tag = "reactions",
    params(("name" = String, Path, description = "The reaction's name.", example = "welcome-mail")),
    responses((status = 200, description = "The reaction.", body = ReactionView), CommandProblems)
)]
pub async fn resume(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    pause_or_resume(&state, &caller, &path, false).await
}

/// Remove a reaction
///
/// Forgets it, with its runs. No process may run its lanes. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/reactions/{name}/remove",
    tag = "reactions",
    params(("name" = String, Path, description = "The reaction's name.", example = "welcome-mail")),
    responses((status = 204, description = "It is removed."), CommandProblems)
)]
pub async fn remove(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    let name = known_name(&path)?;
    let done = state.whole.remove_reaction(name).await;
    obeyed(&state, done, || Problem::unknown("reaction", name))?;
    tracing::info!(reaction = name, command = "remove", "reaction commanded");
    Ok(HttpResponse::NoContent().finish())
}

/// Cancel a run
///
/// One that was not started, or that waits for its next attempt. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/cancel",
    tag = "reactions",
    params((
        "id" = String, Path, description = "The event's id, a dot, and the reaction's name.",
        pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[A-Za-z0-9._-]{1,60}$",
        example = "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11.welcome-mail"
    )),
    responses((status = 200, description = "The run.", body = RunView), CommandProblems)
)]
pub async fn cancel(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    let id: RunId = path.parse().map_err(Problem::bad_request)?;
    let done = cancel_run(&*state.whole, &id).await;
    obeyed(&state, done, || runs::missing(&id))?;
    tracing::info!(run = %id, "run cancelled");
    runs::show(&state, &id).await
}

async fn pause_or_resume(
    state: &HttpState,
    caller: &Caller,
    name: &str,
    paused: bool,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    let name = known_name(name)?;
    let done = state.whole.pause_reaction(name, paused).await;
    obeyed(state, done, || Problem::unknown("reaction", name))?;
    let command = if paused { "pause" } else { "resume" };
    tracing::info!(reaction = name, command, "reaction commanded");
    show(state, name).await
}

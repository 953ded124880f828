//! Reactions and their runs: listing and commands.

pub mod actions;
pub mod reprocess;
pub mod runs;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::unreadable;
use super::openapi::problems::{LookupProblems, SummaryProblems};
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::reactions::reaction::is_name;
use crate::reactions::runs::{overview, overviews};
use crate::store::reactions::ReactionRecord;
use actix_web::{HttpResponse, web};
use view::{ReactionList, ReactionView};

/// List reactions
///
/// All reactions that were ever declared and not removed, by name, with the numbers of their runs.
#[utoipa::path(
    get,
    path = "/v1/reactions",
    tag = "reactions",
    responses((status = 200, description = "The reactions.", body = ReactionList), SummaryProblems)
)]
pub async fn list(state: web::Data<HttpState>, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let reactions = overviews(&*state.whole).await;
    let reactions = reactions.map_err(|error| unreadable(&error))?;
    Ok(HttpResponse::Ok().json(ReactionList {
        reactions: reactions.into_iter().map(ReactionView::from).collect(),
    }))
}

/// Get a reaction
#[utoipa::path(
    get,
    path = "/v1/reactions/{name}",
    tag = "reactions",
    params(("name" = String, Path, description = "The reaction's name.", example = "welcome-mail")),
    responses((status = 200, description = "The reaction.", body = ReactionView), LookupProblems)
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    show(&state, &path).await
}

/// The response that shows a reaction.
async fn show(state: &HttpState, name: &str) -> Result<HttpResponse, Problem> {
    if !is_name(name) {
        return Err(unknown(name));
    }
    let found = overview(&*state.whole, name).await;
    match found.map_err(|error| unreadable(&error))? {
        Some(reaction) => Ok(HttpResponse::Ok().json(ReactionView::from(reaction))),
        None => Err(unknown(name)),
    }
}

/// The reaction of this name.
async fn reaction(state: &HttpState, name: &str) -> Result<ReactionRecord, Problem> {
    if !is_name(name) {
        return Err(unknown(name));
    }
    let found = state.whole.reaction(name).await;
    let found = found.map_err(|error| unreadable(&error))?;
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Problem {
    Problem::missing(format!(
        "there is no reaction {name}; GET /v1/reactions lists them"
    ))
}

/// Refuses a position of another generation of the log.
async fn check_generation(state: &HttpState, cursor: &str, generation: i64) -> Result<(), Problem> {
    let now = state.whole.generation().await;
    let now = now.map_err(|error| unreadable(&error))?;
    if generation == now {
        return Ok(());
    }
    Err(Problem::gone(format!(
        "the cursor {cursor} belongs to generation {generation} of the log, and this is generation {now}: the \
         database was restored or replaced; begin again without a cursor"
    )))
}

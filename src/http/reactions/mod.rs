//! Reactions and their runs: listing and commands.

pub mod actions;
pub mod reprocess;
pub mod runs;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::{found, unreadable};
use super::openapi::problems::{LookupProblems, SummaryProblems};
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::reactions::reaction::is_name;
use crate::reactions::runs::{overview, overviews};
use crate::store::reactions::ReactionRecord;
use actix_web::{HttpResponse, web};
use view::{ReactionList, ReactionView};

/// What to do with a cursor of another generation of the log.
const RESTART: &str = "begin again without a cursor";

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
    let name = known_name(name)?;
    let reaction = overview(&*state.whole, name).await;
    let reaction = found(reaction, || Problem::unknown("reaction", name))?;
    Ok(HttpResponse::Ok().json(ReactionView::from(reaction)))
}

/// The reaction of this name.
async fn reaction(state: &HttpState, name: &str) -> Result<ReactionRecord, Problem> {
    let name = known_name(name)?;
    found(state.whole.reaction(name).await, || {
        Problem::unknown("reaction", name)
    })
}

/// The name, if a reaction may have it.
fn known_name(name: &str) -> Result<&str, Problem> {
    let known = is_name(name).then_some(name);
    known.ok_or_else(|| Problem::unknown("reaction", name))
}

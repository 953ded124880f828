//! Followers of the log: listing and commands.

pub mod actions;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::{found, unreadable};
use super::openapi::problems::{LookupProblems, SummaryProblems};
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::store::StoreError;
use crate::store::commit_log::Unnumbered;
use crate::store::followers::FollowerRecord;
use actix_web::{HttpResponse, web};
use view::{Behind, FollowerList, FollowerView, LogView, OutsidePosition};

/// List followers
///
/// All followers of the log that were ever declared, by name, and where the log ends.
#[utoipa::path(
    get,
    path = "/v1/followers",
    tag = "followers",
    responses((status = 200, description = "The followers.", body = FollowerList), SummaryProblems)
)]
pub async fn list(state: web::Data<HttpState>, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let list = async {
        let generation = state.log.generation().await?;
        let end = state.log.end().await?;
        let unnumbered = state.log.unnumbered().await?;
        let mut followers = Vec::new();
        for record in state.follower_store.followers().await? {
            followers.push(view(&state, record, generation, unnumbered).await?);
        }
        Ok::<_, StoreError>(FollowerList {
            followers,
            log: LogView {
                generation,
                end: OutsidePosition::new(generation, end).to_string(),
            },
        })
    };
    let list = list.await.map_err(|error| unreadable(&error))?;
    Ok(HttpResponse::Ok().json(list))
}

/// Get a follower
#[utoipa::path(
    get,
    path = "/v1/followers/{name}",
    tag = "followers",
    params(("name" = String, Path, description = "The follower's name.", example = "by-type")),
    responses((status = 200, description = "The follower.", body = FollowerView), LookupProblems)
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    show(&state, &path).await
}

/// The response that shows a follower.
async fn show(state: &HttpState, name: &str) -> Result<HttpResponse, Problem> {
    let follower = async {
        let Some(record) = state.follower_store.follower(name).await? else {
            return Ok(None);
        };
        let generation = state.log.generation().await?;
        let unnumbered = state.log.unnumbered().await?;
        let view = view(state, record, generation, unnumbered).await?;
        Ok(Some(view))
    };
    let follower = found(follower.await, || Problem::unknown("follower", name))?;
    Ok(HttpResponse::Ok().json(follower))
}

async fn view(
    state: &HttpState,
    record: FollowerRecord,
    generation: i64,
    unnumbered: Unnumbered,
) -> Result<FollowerView, StoreError> {
    let (events, seconds) = state.log.backlog(record.position).await?;
    // What is committed and has no number yet is behind every follower too.
    let behind = Behind {
        events: events.saturating_add(unnumbered.events),
        seconds: seconds.max(unnumbered.seconds),
    };
    Ok(FollowerView::new(record, generation, behind))
}

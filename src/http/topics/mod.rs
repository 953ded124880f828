//! Topics: the event types of the log, and streams of their events.

pub mod events;
pub mod start;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::{limit, parse_query, text, unreadable};
use super::openapi::problems::ListProblems;
use super::problem::Problem;
use crate::config::auth::Scope;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;
use view::TopicList;

/// How a page of topics is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TopicQuery {
    /// Types on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before: the last type on it.
    #[param(pattern = r"^[^\u0000]*$")]
    cursor: Option<String>,
}

/// List topics
///
/// The event types of the log, with counts. The log is counted once by each process, and then what has come since:
/// `asOf` says when, and `complete` whether all was counted. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/topics",
    tag = "topics",
    params(TopicQuery),
    responses((status = 200, description = "The event types, by name.", body = TopicList), ListProblems)
)]
pub async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: TopicQuery = parse_query(&request)?;
    let limit = limit(query.limit)?;
    let after = text("cursor", query.cursor)?;
    let listing = state.topics.types(after.as_deref(), limit).await;
    match listing.map_err(|error| unreadable(&error))? {
        Some(listing) => Ok(HttpResponse::Ok().json(TopicList::from(listing))),
        None => Err(Problem::unavailable(
            "the log is being counted for another request; repeat the request",
        )),
    }
}

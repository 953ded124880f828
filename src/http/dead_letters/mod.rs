//! Dead letters: listing, reading, replay and purge.

pub mod actions;
pub mod count;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::{cursor, found, limit, parse_query, text, time, unreadable};
use super::openapi::problems::{ListProblems, LookupProblems};
use super::openapi::schema;
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::event::Cause;
use crate::store::dead_letters::{
    DeadLetterFilter, DeadLetterOrder, DeadLetterPosition, DeadLetterState,
};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use view::{Letter, Summary};

/// Most dead letters that a request can name.
const MAX_IDS: usize = 1_000;

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeadLetterListQuery {
    /// Only dead letters with this cause.
    #[param(value_type = Option<schema::CauseWord>)]
    cause: Option<String>,
    /// Only events of this type.
    #[param(pattern = r"^[^\u0000]*$")]
    event_type: Option<String>,
    /// Only those that failed last at this time or later (RFC 3339).
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only those that failed last before this time (RFC 3339).
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only those in this state.
    #[param(value_type = Option<schema::StateWord>)]
    state: Option<String>,
    /// Most dead letters on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// The `next` of the page before.
    #[param(
        pattern = r"^-?[0-9]{1,17}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        example = "1769851800000000.019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11"
    )]
    cursor: Option<String>,
}

/// A page of dead letters.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetterPage {
    /// The dead letters, the newest first.
    dead_letters: Vec<Summary>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    next: Option<String>,
}

/// List dead letters
///
/// Newest first, by the time they were created.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    tag = "dead letters",
    params(DeadLetterListQuery),
    responses(
        (status = 200, description = "A page of dead letters.", body = DeadLetterPage),
        ListProblems
    )
)]
pub async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: DeadLetterListQuery = parse_query(&request)?;
    let limit = limit(query.limit)?;
    let after: Option<DeadLetterPosition> = cursor(query.cursor)?;
    let filter = filter(FilterParts {
        ids: None,
        cause: query.cause,
        event_type: query.event_type,
        from: query.from,
        to: query.to,
        state: query.state,
    })?;
    let letters = state
        .letters
        .list_letters(&filter, DeadLetterOrder::Newest, after, limit)
        .await
        .map_err(|error| unreadable(&error))?;
    let last = letters.last().filter(|_| letters.len() >= limit);
    Ok(HttpResponse::Ok().json(DeadLetterPage {
        next: last.map(|last| last.position().to_string()),
        dead_letters: letters.into_iter().map(Summary::from).collect(),
    }))
}

/// Get a dead letter
///
/// With its headers, its body and its earlier failures.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    tag = "dead letters",
    params(("id" = Uuid, Path, description = "The dead letter's id.")),
    responses((status = 200, description = "The dead letter.", body = Letter), LookupProblems)
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let given = path.into_inner();
    let id = Uuid::try_parse(&given)
        .map_err(|_| Problem::bad_request(format!("{given:?} is not the id of a dead letter")))?;
    let letter = state.letters.get_letter(id).await;
    let missing = || Problem::missing(format!("no dead letter {id}"));
    Ok(HttpResponse::Ok().json(Letter::from(found(letter, missing)?)))
}

/// The parts of a filter as callers spell them.
struct FilterParts {
    ids: Option<Vec<Uuid>>,
    cause: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    state: Option<String>,
}

fn filter(parts: FilterParts) -> Result<DeadLetterFilter, Problem> {
    if let Some(ids) = &parts.ids
        && ids.len() > MAX_IDS
    {
        return Err(Problem::bad_request(format!(
            "ids names {} dead letters, at most {MAX_IDS} can be named",
            ids.len()
        )));
    }
    if let Some(cause) = &parts.cause
        && Cause::parse(cause).is_none()
    {
        let known = Cause::ALL.map(Cause::as_str).join(", ");
        return Err(Problem::bad_request(format!(
            "cause is {cause:?}, but must be one of {known}"
        )));
    }
    let state = parts
        .state
        .map(|word| {
            DeadLetterState::parse(&word).ok_or_else(|| {
                Problem::bad_request(format!("state is {word:?}, but must be dead or replayed"))
            })
        })
        .transpose()?;
    Ok(DeadLetterFilter {
        ids: parts.ids,
        cause: parts.cause,
        event_type: text("eventType", parts.event_type)?,
        from: time("from", parts.from)?,
        to: time("to", parts.to)?,
        state,
    })
}

//! `/v1/dead-letters`: what was put aside, and what is done about it.

pub mod actions;
pub mod count;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::problem::Problem;
use super::queries::{parse_query, text, time, unreadable};
use crate::config::auth::Scope;
use crate::event::Cause;
use crate::store::dead_letters::{LetterFilter, LetterOrder, LetterPosition, LetterState};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use view::{Letter, Summary};

/// Letters on a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Most letters on a page.
const MAX_LIMIT: usize = 1_000;
/// Most letters that can be named.
const MAX_IDS: usize = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListQuery {
    cause: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LetterPage {
    dead_letters: Vec<Summary>,
    /// Give this as `cursor` for the next page; null on the last.
    next: Option<String>,
}

/// `GET /v1/dead-letters`: newest first failure first.
pub async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: ListQuery = parse_query(&request)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit is {limit}, but must lie between 1 and {MAX_LIMIT}"
        )));
    }
    let after = query
        .cursor
        .map(|cursor| {
            cursor.parse::<LetterPosition>().map_err(|()| {
                Problem::bad_request("cursor must be the `next` of an earlier page, as it was")
            })
        })
        .transpose()?;
    let filter = filter(Parts {
        ids: None,
        cause: query.cause,
        event_type: query.event_type,
        from: query.from,
        to: query.to,
        state: query.state,
    })?;
    let letters = state
        .letters
        .list_letters(&filter, LetterOrder::Newest, after, limit)
        .await
        .map_err(|error| unreadable(&error))?;
    let last = letters.last().filter(|_| letters.len() >= limit);
    Ok(HttpResponse::Ok().json(LetterPage {
        next: last.map(|last| last.position().to_string()),
        dead_letters: letters.into_iter().map(Summary::from).collect(),
    }))
}

/// `GET /v1/dead-letters/{id}`
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
    match letter.map_err(|error| unreadable(&error))? {
        Some(letter) => Ok(HttpResponse::Ok().json(Letter::from(letter))),
        None => Err(Problem::missing(format!("no dead letter {id}"))),
    }
}

/// The parts of a filter as callers spell them.
struct Parts {
    ids: Option<Vec<Uuid>>,
    cause: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    state: Option<String>,
}

fn filter(parts: Parts) -> Result<LetterFilter, Problem> {
    if let Some(ids) = &parts.ids
        && ids.len() > MAX_IDS
    {
        return Err(Problem::bad_request(format!(
            "ids names {} letters, at most {MAX_IDS} can be named",
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
            LetterState::parse(&word).ok_or_else(|| {
                Problem::bad_request(format!("state is {word:?}, but must be dead or replayed"))
            })
        })
        .transpose()?;
    Ok(LetterFilter {
        ids: parts.ids,
        cause: parts.cause,
        event_type: text("eventType", parts.event_type)?,
        from: time("from", parts.from)?,
        to: time("to", parts.to)?,
        state,
    })
}

//! Pull streams: the Pix message interface, streams of any events, and what operators see of them.

pub mod actions;
mod call;
mod charged;
pub mod collect;
pub mod messages;
pub mod pix;
pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::listing::{self, parse_query, unreadable};
use super::openapi::problems::{ListProblems, LookupProblems, SummaryProblems};
use super::problem::Problem;
use crate::collectors::polls::Declared;
use crate::collectors::stream::{MAX_KEY, PIX};
use crate::config::auth::Scope;
use crate::event::pix::is_ispb;
use crate::store::StoreError;
use crate::store::streams::Place;
use actix_web::{HttpRequest, HttpResponse, web};
use call::KeyPath;
use serde::Deserialize;
use utoipa::IntoParams;
use view::{PlaceList, PlaceView, StreamList, StreamView};

/// List streams
///
/// The streams that this process declares, by name. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/streams",
    tag = "streams",
    responses((status = 200, description = "The streams.", body = StreamList), SummaryProblems)
)]
pub async fn list(state: web::Data<HttpState>, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let mut streams = Vec::new();
    for declared in state.polls.streams() {
        streams.push(level(&state, declared).await?);
    }
    Ok(HttpResponse::Ok().json(StreamList { streams }))
}

async fn level(state: &HttpState, declared: &Declared) -> Result<StreamView, Problem> {
    let level = state.whole.stream_level(declared.id).await;
    let level = level.map_err(|error| unreadable(&error))?;
    Ok(StreamView::new(&declared.stream, level))
}

/// How a page of keys is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    /// Keys on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before: the last key on it.
    cursor: Option<String>,
}

/// List the keys of a stream
///
/// Those with messages or sessions, by key. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/streams/{stream}",
    tag = "streams",
    params(("stream" = String, Path, description = "The stream's name.", example = "orders"), KeyQuery),
    responses(
        (status = 200, description = "The stream and its keys.", body = PlaceList),
        (status = 404, description = "There is no stream of this name."),
        ListProblems
    )
)]
pub async fn get(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: KeyQuery = parse_query(&request)?;
    let limit = listing::limit(query.limit)?;
    let after = listing::text("cursor", query.cursor)?;
    let declared = declared(&state, &path)?;
    let places = state
        .whole
        .places(declared.id, after.as_deref(), limit)
        .await;
    let places = places.map_err(|error| unreadable(&error))?;
    let next = places
        .last()
        .filter(|_| places.len() >= limit)
        .map(|last| last.key.clone());
    Ok(HttpResponse::Ok().json(PlaceList {
        stream: level(&state, declared).await?,
        keys: places.into_iter().map(PlaceView::from).collect(),
        next,
    }))
}

/// Get a key of a stream
///
/// How many messages wait for its collectors, and their sessions. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/streams/{stream}/{key}",
    tag = "streams",
    params(KeyPath),
    responses((status = 200, description = "The key.", body = PlaceView), LookupProblems)
)]
pub async fn place(
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<KeyPath>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    show(&state, keyed(&state, &at.stream, &at.key)?, &at.key).await
}

/// The response that shows a key.
async fn show(state: &HttpState, declared: &Declared, key: &str) -> Result<HttpResponse, Problem> {
    let place = Place {
        stream: declared.id,
        key: key.to_owned(),
    };
    let found = state.whole.place(&place).await;
    let found = found.map_err(|error| unreadable(&error))?;
    Ok(HttpResponse::Ok().json(PlaceView::from(found)))
}

/// The stream of this name.
fn declared<'a>(state: &'a HttpState, name: &str) -> Result<&'a Declared, Problem> {
    let declared = state.polls.stream(name);
    declared.ok_or_else(|| Problem::unknown("stream", name))
}

/// The stream of this name, if a message of it can have this key.
fn keyed<'a>(state: &'a HttpState, name: &str, key: &str) -> Result<&'a Declared, Problem> {
    let declared = declared(state, name)?;
    check_key(name, key)?;
    Ok(declared)
}

/// Refuses what no message of the stream has for a key: it would take room in the store for nothing.
fn check_key(stream: &str, key: &str) -> Result<(), Problem> {
    if stream == PIX {
        return check_ispb(key);
    }
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Problem::bad_request(format!(
            "the key has {} bytes, but must have 1 to {MAX_KEY}",
            key.len()
        )));
    }
    match key.contains('\0') {
        true => Err(Problem::bad_request("the key contains U+0000")),
        false => Ok(()),
    }
}

fn check_ispb(ispb: &str) -> Result<(), Problem> {
    if is_ispb(ispb) {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "the ispb is {ispb:?}, but must have 8 digits"
    )))
}

/// The store failed. What was asked may have been done: a repeat with the same id gets the same answer.
fn failed(error: &StoreError) -> Problem {
    tracing::warn!(kind = error.kind().as_str(), %error, "a call of a collector failed");
    Problem::unavailable("the store cannot answer now; repeat the request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_that_a_message_can_have() {
        let longest = "é".repeat(MAX_KEY / 2);
        let longer = format!("{longest}k");
        for (stream, key, fits) in [
            ("orders", "k", true),
            ("orders", longest.as_str(), true),
            ("orders", longer.as_str(), false),
            ("orders", "", false),
            ("orders", "a\0", false),
            (PIX, "00000000", true),
            (PIX, "k", false),
            (PIX, "", false),
            (PIX, "000000000", false),
        ] {
            assert_eq!(check_key(stream, key).is_ok(), fits, "{stream} {key:?}");
        }
    }
}

//! `/v1/streams/{stream}/{key}`: collecting the messages of a declared stream.

use super::call::{KeyPath, TokenPath, answer, done};
use super::keyed;
use super::view::{CollectedMessages, to_json};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::connection::is_closed;
use crate::http::listing::{check_limit, parse_query};
use crate::http::openapi::problems::CollectProblems;
use crate::http::problem::Problem;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

/// Messages of an answer unless the query asks for another number, and the most.
const DEFAULT: usize = 10;
const MOST: usize = 100;

/// How many messages are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CollectQuery {
    /// Most messages of the answer; it does not wait to have so many.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: Option<usize>,
}

fn limit(request: &HttpRequest) -> Result<usize, Problem> {
    let query: CollectQuery = parse_query(request)?;
    check_limit(query.limit.unwrap_or(DEFAULT), MOST)
}

/// Open a stream
///
/// Opens a session of a key and answers as soon as there are messages, or with 204 when the stream's `wait` is over.
/// `Pull-Next` is the path of the next call, which acknowledges this answer. Needs the scope `collect`.
#[utoipa::path(
    get,
    path = "/v1/streams/{stream}/{key}/start",
    tag = "streams",
    params(KeyPath, CollectQuery),
    responses(
        (status = 200, description = "The messages.", body = CollectedMessages,
         headers(("Pull-Next" = String, description = "The path of the next call."))),
        (status = 204, description = "There is none yet.",
         headers(("Pull-Next" = String, description = "The path of the next call."))),
        CollectProblems
    )
)]
pub async fn start(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<KeyPath>,
) -> Result<HttpResponse, Problem> {
    caller.require_place(&at.stream, &at.key)?;
    let limit = limit(&request)?;
    let is_gone = || is_closed(&request);
    let declared = keyed(&state, &at.stream, &at.key)?;
    let polled = state.polls.start(declared, &at.key, limit, &is_gone).await;
    answer(
        polled,
        &at.key,
        |next| path(&at.stream, &at.key, next),
        to_json,
    )
}

/// Go on reading a stream
///
/// Acknowledges the answer before and answers like `start`. A token that was answered with 200 may be asked again
/// until the one of its `Pull-Next` was used, and gets the same messages.
#[utoipa::path(
    get,
    path = "/v1/streams/{stream}/{key}/{token}",
    tag = "streams",
    params(TokenPath, CollectQuery),
    responses(
        (status = 200, description = "The messages.", body = CollectedMessages,
         headers(("Pull-Next" = String, description = "The path of the next call."))),
        (status = 204, description = "There is none yet.",
         headers(("Pull-Next" = String, description = "The path of the next call."))),
        CollectProblems
    )
)]
pub async fn next(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<TokenPath>,
) -> Result<HttpResponse, Problem> {
    caller.require_place(&at.stream, &at.key)?;
    let limit = limit(&request)?;
    let is_gone = || is_closed(&request);
    let declared = keyed(&state, &at.stream, &at.key)?;
    let polled = state
        .polls
        .next(declared, &at.key, &at.token, limit, &is_gone)
        .await;
    answer(
        polled,
        &at.key,
        |next| path(&at.stream, &at.key, next),
        to_json,
    )
}

/// End a stream
///
/// Acknowledges the last answer and frees the session's slot. Needs the scope `collect`.
#[utoipa::path(
    delete,
    path = "/v1/streams/{stream}/{key}/{token}",
    tag = "streams",
    params(TokenPath),
    responses((status = 200, description = "The empty object.", body = serde_json::Value), CollectProblems)
)]
pub async fn end(
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<TokenPath>,
) -> Result<HttpResponse, Problem> {
    caller.require_place(&at.stream, &at.key)?;
    let declared = keyed(&state, &at.stream, &at.key)?;
    done(state.polls.end(declared, &at.key, &at.token).await, &at.key)
}

fn path(stream: &str, key: &str, token: &str) -> String {
    format!("/v1/streams/{}/{}/{token}", escaped(stream), escaped(key))
}

/// A part of a path: everything but unreserved characters (RFC 3986, 2.3) is percent-encoded.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

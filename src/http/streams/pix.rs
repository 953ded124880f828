//! `/api/pix`: the Pix message interface.

use super::call::{answer, done};
use super::check_ispb;
use crate::collectors::Polled;
use crate::collectors::polls::Declared;
use crate::collectors::stream::PIX;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::connection::is_closed;
use crate::http::openapi::problems::CollectProblems;
use crate::http::openapi::schema::PixAnswer;
use crate::http::problem::Problem;
use crate::store::StoreError;
use crate::store::streams::Delivered;
use actix_web::http::header::ACCEPT;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

/// Messages of an answer to `Accept: multipart/json`.
const MANY: usize = 10;

/// An ISPB's streams.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct IspbPath {
    /// The receiver's ISPB.
    #[param(pattern = r"^[0-9]{8}$", example = "00000000")]
    ispb: String,
}

/// An answer of a stream.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct AnswerPath {
    /// The receiver's ISPB.
    #[param(pattern = r"^[0-9]{8}$", example = "00000000")]
    ispb: String,
    /// The last part of `Pull-Next`.
    #[param(example = "AAAAAAAAAAEAAAACrB0zYgD7PzYrW2rE1lS4ng")]
    interation_id: String,
}

/// The stream of Pix messages, for a caller that may collect those of this ISPB.
fn stream<'a>(state: &'a HttpState, caller: &Caller, ispb: &str) -> Result<&'a Declared, Problem> {
    let stream = state.polls.stream(PIX).ok_or_else(|| {
        Problem::missing("the Pix message interface is switched off (pix.enabled)")
    })?;
    check_ispb(ispb)?;
    caller.require_place(PIX, ispb)?;
    Ok(stream)
}

/// Whether the answer may have several messages: only if the client says that it takes an array.
fn many(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(ACCEPT);
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(takes_an_array)
}

/// Whether a part of `Accept` is the type of arrays, and its weight is not 0, which means that it is not acceptable.
fn takes_an_array(part: &str) -> bool {
    let mut parts = part.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let is_zero = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let weight = value.trim().parse::<f32>();
        name.trim().eq_ignore_ascii_case("q") && weight.is_ok_and(|weight| weight <= 0.0)
    };
    kind.eq_ignore_ascii_case("multipart/json") && !parts.any(is_zero)
}

fn limit(many: bool) -> usize {
    if many { MANY } else { 1 }
}

fn body(messages: Vec<Delivered>, many: bool) -> String {
    // A repeat may ask for one when it asked for more at first.
    let many = many || messages.len() > 1;
    let mut bodies = messages.into_iter().map(|message| message.body);
    match many {
        true => format!("[{}]", bodies.collect::<Vec<_>>().join(",")),
        false => bodies.next().unwrap_or_default(),
    }
}

fn respond(
    polled: Result<Polled, StoreError>,
    ispb: &str,
    many: bool,
) -> Result<HttpResponse, Problem> {
    let path = |next: &str| format!("/api/pix/{ispb}/stream/{next}");
    answer(polled, ispb, path, |messages| body(messages, many))
}

/// Open a stream of Pix messages
///
/// Opens a stream of an ISPB, of which there are at most `pix.slots`, and answers as soon as there are messages, or
/// with 204 after 8 seconds. With `Accept: multipart/json` the body is an array of one to ten messages, else one
/// message. `Pull-Next` is the path of the next call, which acknowledges this answer.
#[utoipa::path(
    get,
    path = "/api/pix/{ispb}/stream/start",
    tag = "pix",
    params(IspbPath),
    responses(
        (status = 200, description = "One message, or an array.", body = PixAnswer,
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
    at: web::Path<IspbPath>,
) -> Result<HttpResponse, Problem> {
    let (ispb, many) = (&at.ispb, many(&request));
    let stream = stream(&state, &caller, ispb)?;
    let is_gone = || is_closed(&request);
    let polled = state.polls.start(stream, ispb, limit(many), &is_gone).await;
    respond(polled, ispb, many)
}

/// Go on reading a stream of Pix messages
///
/// Acknowledges the answer before and answers like `start`. An id that was answered with 200 may be asked again until
/// the one of its `Pull-Next` was used, and gets the same messages.
#[utoipa::path(
    get,
    path = "/api/pix/{ispb}/stream/{interationId}",
    tag = "pix",
    params(AnswerPath),
    responses(
        (status = 200, description = "One message, or an array.", body = PixAnswer,
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
    at: web::Path<AnswerPath>,
) -> Result<HttpResponse, Problem> {
    let (ispb, many) = (&at.ispb, many(&request));
    let stream = stream(&state, &caller, ispb)?;
    let is_gone = || is_closed(&request);
    let polled = state
        .polls
        .next(stream, ispb, &at.interation_id, limit(many), &is_gone)
        .await;
    respond(polled, ispb, many)
}

/// End a stream of Pix messages
///
/// Acknowledges the last answer and frees the stream's place. Clients take 200 and 410 both as success.
#[utoipa::path(
    delete,
    path = "/api/pix/{ispb}/stream/{interationId}",
    tag = "pix",
    params(AnswerPath),
    responses((status = 200, description = "The empty object.", body = serde_json::Value), CollectProblems)
)]
pub async fn end(
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<AnswerPath>,
) -> Result<HttpResponse, Problem> {
    let stream = stream(&state, &caller, &at.ispb)?;
    let polled = state.polls.end(stream, &at.ispb, &at.interation_id).await;
    done(polled, &at.ispb)
}

/// End all streams of an ISPB
///
/// What they have not acknowledged is handed out again.
#[utoipa::path(
    method(get, delete),
    path = "/api/pix/{ispb}/stream/stop",
    tag = "pix",
    params(IspbPath),
    responses((status = 200, description = "The empty object.", body = serde_json::Value), CollectProblems)
)]
pub async fn stop(
    state: web::Data<HttpState>,
    caller: Caller,
    at: web::Path<IspbPath>,
) -> Result<HttpResponse, Problem> {
    let stream = stream(&state, &caller, &at.ispb)?;
    done(state.polls.release(stream, &at.ispb, None).await, &at.ispb)
}

//! What the calls of collectors share: their paths, and their answers.

use super::charged::Charged;
use super::failed;
use crate::collectors::Polled;
use crate::http::problem::Problem;
use crate::store::StoreError;
use crate::store::streams::Delivered;
use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// A key of a stream.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct KeyPath {
    /// The stream's name.
    #[param(example = "orders")]
    pub stream: String,
    /// The key: at most 256 bytes.
    #[param(min_length = 1, max_length = 256, example = "store-7")]
    pub key: String,
}

/// An answer of a session.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TokenPath {
    /// The stream's name.
    #[param(example = "orders")]
    pub stream: String,
    /// The key: at most 256 bytes.
    #[param(min_length = 1, max_length = 256, example = "store-7")]
    pub key: String,
    /// The last part of `Pull-Next`.
    #[param(example = "AAAAAAAAAAEAAAACrB0zYgD7PzYrW2rE1lS4ng")]
    pub token: String,
}

/// `Cache-Control`: a call changes the session, so its answer is of no use to anyone else, and of none later.
const NOT_STORED: &str = "no-store";

/// The answer with messages, or with none, and the path of the next call.
pub(super) fn answer(
    polled: Result<Polled, StoreError>,
    key: &str,
    path: impl FnOnce(&str) -> String,
    body: impl FnOnce(Vec<Delivered>) -> String,
) -> Result<HttpResponse, Problem> {
    match polled.map_err(|error| failed(&error))? {
        Polled::Messages {
            next,
            messages,
            permit,
        } => Ok(HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CACHE_CONTROL, NOT_STORED))
            .insert_header(("Pull-Next", path(&next)))
            .body(Charged::new(body(messages), permit))),
        Polled::Nothing { next } => Ok(HttpResponse::NoContent()
            .insert_header((CACHE_CONTROL, NOT_STORED))
            .insert_header(("Pull-Next", path(&next)))
            .finish()),
        other => Err(refused(other, key)),
    }
}

/// How many messages returned, of a call that hands out none.
pub(super) fn returned(polled: Result<Polled, StoreError>, key: &str) -> Result<u32, Problem> {
    match polled.map_err(|error| failed(&error))? {
        Polled::Done { returned, .. } => Ok(returned),
        other => Err(refused(other, key)),
    }
}

/// The empty object, of a call that hands out no messages.
pub(super) fn done(polled: Result<Polled, StoreError>, key: &str) -> Result<HttpResponse, Problem> {
    returned(polled, key)?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, NOT_STORED))
        .json(serde_json::json!({})))
}

/// What a collector is told when it gets no answer of its stream.
fn refused(polled: Polled, key: &str) -> Problem {
    match polled {
        Polled::Full { after } => Problem::too_many(format!(
            "{key} has as many streams as it may; end one, or wait until one lapses"
        ))
        .after(after.max(Duration::from_secs(1))),
        Polled::Busy => Problem::overloaded(
            "answers under way to other collectors have as many bytes as ingest.max_in_flight allows; repeat the request",
        ),
        Polled::Unknown => Problem::missing(format!("no stream of {key} ever had this id")),
        _ => Problem::gone(
            "this stream has ended or lapsed, or a newer id of it was used, or a later call with this one; where no \
             other call goes on with it, begin again with start",
        ),
    }
}

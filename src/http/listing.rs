//! What routes that read have in common: queries, pages, cursors, and failures of the store.

use super::HttpState;
use super::problem::Problem;
use crate::store::{ErrorKind, StoreError};
use actix_web::error::QueryPayloadError;
use actix_web::{HttpRequest, web};
use chrono::{DateTime, Utc};
use std::fmt::Display;
use std::str::FromStr;

/// Items on a page unless the query asks for another number.
const DEFAULT_LIMIT: usize = 50;
/// Most items on a page.
const MAX_LIMIT: usize = 1_000;

pub(super) fn parse_query<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| match error {
            QueryPayloadError::Deserialize(error) => {
                Problem::bad_request(format!("the query cannot be read: {error}"))
            }
            other => Problem::bad_request(format!("the query cannot be read: {other}")),
        })
}

/// The size of a page.
pub(super) fn limit(given: Option<usize>) -> Result<usize, Problem> {
    check_limit(given.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)
}

/// Most that a request may work on, if it says so.
pub(super) fn work_limit(given: Option<u32>, most: u64) -> Result<Option<u64>, Problem> {
    given
        .map(|limit| check_limit(limit.into(), most))
        .transpose()
}

/// A limit that lies between 1 and `most`.
pub(super) fn check_limit<T>(limit: T, most: T) -> Result<T, Problem>
where
    T: PartialOrd + From<u8> + Display,
{
    if limit >= T::from(1) && limit <= most {
        return Ok(limit);
    }
    Err(Problem::bad_request(format!(
        "limit is {limit}, but must lie between 1 and {most}"
    )))
}

/// The position that an earlier response gave as `next`.
pub(super) fn cursor<T: FromStr>(given: Option<String>) -> Result<Option<T>, Problem> {
    let parsed = given.map(|cursor| cursor.parse()).transpose();
    parsed.map_err(|_| {
        Problem::bad_request("cursor must be the unchanged `next` of an earlier response")
    })
}

/// Refuses what belongs to another generation of the log; `advice` says what to do then.
pub(super) async fn check_generation(
    state: &HttpState,
    what: impl Display,
    generation: i64,
    advice: &str,
) -> Result<(), Problem> {
    let now = state.log.generation().await;
    let now = now.map_err(|error| unreadable(&error))?;
    if generation == now {
        return Ok(());
    }
    Err(Problem::gone(format!(
        "{what} belongs to generation {generation} of the log, and this is generation {now}: the database was \
         restored or replaced; {advice}"
    )))
}

pub(super) fn text(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    match value {
        Some(text) if text.contains('\0') => {
            Err(Problem::bad_request(format!("{name} contains U+0000")))
        }
        other => Ok(other),
    }
}

pub(super) fn time(name: &str, value: Option<String>) -> Result<Option<DateTime<Utc>>, Problem> {
    value
        .map(|text| {
            // A plus that was not percent-encoded arrives as a space.
            DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
                .map(|time| time.with_timezone(&Utc))
                .map_err(|_| {
                    Problem::bad_request(format!(
                        "{name} is {text:?}, but must be a time as in RFC 3339, such as \
                         2026-01-31T09:30:00Z"
                    ))
                })
        })
        .transpose()
}

/// What was looked up in the store.
pub(super) fn found<T>(
    read: Result<Option<T>, StoreError>,
    missing: impl FnOnce() -> Problem,
) -> Result<T, Problem> {
    let found = read.map_err(|error| unreadable(&error))?;
    found.ok_or_else(missing)
}

/// A failure of the store, which is never the caller's.
pub(super) fn unreadable(error: &StoreError) -> Problem {
    tracing::error!(kind = error.kind().as_str(), %error, "query failed");
    if error.kind() == ErrorKind::Transient {
        return Problem::unavailable(
            "the store could not answer in time; narrow the query, by userId for example, or try \
             again",
        );
    }
    Problem::unavailable("the store cannot be read now")
}

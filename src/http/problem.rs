//! Error responses: `application/problem+json` (RFC 9457). A 4xx is the caller's error, a 5xx the
//! server's; a 503 and a 429 always have `Retry-After`.

use crate::event::item::FieldError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `Retry-After` of a 503 unless there is reason for another.
const RETRY_LATER: Duration = Duration::from_secs(1);

/// An error in one item of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemError {
    /// Index of the item, from 0.
    pub index: usize,
    /// The field and the reason.
    #[serde(flatten)]
    pub flaw: FieldError,
}

impl std::fmt::Display for ItemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FieldError { field, reason, .. } = &self.flaw;
        match field.as_str() {
            "" => write!(f, "item {}: {reason}", self.index),
            field => write!(f, "item {}: {field}: {reason}", self.index),
        }
    }
}

/// An error response. Boxed inside, so that a `Result` on the good path stays small.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Serialize)]
struct Parts {
    #[serde(rename = "type")]
    kind: &'static str,
    title: String,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ItemError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
    #[serde(skip)]
    allow: Option<String>,
    #[serde(skip)]
    retry_after: Duration,
    /// Events of the request, as far as they were counted.
    #[serde(skip)]
    events: usize,
    /// The label in `eclusa_events_refused_total`.
    #[serde(skip)]
    reason: &'static str,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
            ids: Vec::new(),
            allow: None,
            retry_after: RETRY_LATER,
            events: 1,
            reason,
        }))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 400: these items are not events.
    pub fn invalid_items(errors: Vec<ItemError>, items: usize) -> Self {
        let mut bad: Vec<usize> = errors.iter().map(|error| error.index).collect();
        bad.dedup();
        let detail = if items == 1 {
            "the event is not valid; see errors".to_owned()
        } else {
            format!(
                "{} of {items} events are not valid, so none was taken; see errors",
                bad.len()
            )
        };
        let mut problem = Self::bad_request(detail);
        problem.0.errors = errors;
        problem.0.events = items;
        problem
    }

    /// 401: no key, or an unknown one.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403: the key lacks the scope, or the request comes from a foreign web page.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "unauthorized", detail)
    }

    /// 404.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 404: the listing of such things, at `/v1/{kind}s`, has none of this name.
    pub fn unknown(kind: &str, name: &str) -> Self {
        Self::missing(format!(
            "there is no {kind} {name}; GET /v1/{kind}s lists them"
        ))
    }

    /// 409: not in this state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 410: what is named is of an earlier state of the log.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// 408: the client was too slow.
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail)
    }

    /// 413: more than one request may hold.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", detail)
    }

    /// 429: as many as are allowed are at it already.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", detail)
    }

    /// 500: a defect of ours.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 503: retry later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// 503: there is no room now.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    /// Sets the number of events that were refused.
    pub fn of_events(mut self, events: usize) -> Self {
        self.0.events = events;
        self
    }

    /// Names the ids that a repeat of the request is to carry.
    pub fn with_ids(mut self, ids: Vec<String>) -> Self {
        self.0.ids = ids;
        self
    }

    /// Sets `Retry-After`.
    pub fn after(mut self, pause: Duration) -> Self {
        self.0.retry_after = pause;
        self
    }

    /// How many events were refused; a request that could not be read counts as one.
    pub fn events(&self) -> u64 {
        self.0.events as u64
    }

    /// The label in `eclusa_events_refused_total`.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.0.status);
        match self.0.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                // Whole seconds, rounded up; zero would ask for a busy loop.
                let seconds = self.0.retry_after.as_secs_f64().ceil().max(1.0);
                response.insert_header((RETRY_AFTER, seconds as u64));
            }
            StatusCode::UNAUTHORIZED => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"eclusa\""));
            }
            _ => {}
        }
        if let Some(allow) = &self.0.allow {
            response.insert_header((ALLOW, allow.as_str()));
        }
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        match serde_json::to_string(&self.0) {
            Ok(body) => response.body(body),
            Err(_) => response.finish(),
        }
    }
}

/// The response on paths that do not exist.
pub async fn not_found(request: HttpRequest) -> Problem {
    Problem::missing(format!(
        "there is nothing at {}; the API is described at /docs",
        request.path()
    ))
}

/// The response on paths that exist, for methods that do not.
pub fn method_not_allowed(request: &HttpRequest, allow: String) -> Problem {
    let mut problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid",
        format!("{} takes {allow}", request.path()),
    );
    problem.0.allow = Some(allow);
    problem
}

impl actix_web::Responder for Problem {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}

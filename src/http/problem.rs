//! Errors on the wire: `application/problem+json` (RFC 9457). Whose fault it is shows in the
//! status: 4xx the caller's, 5xx ours, and a 503 always says when to come back.

use crate::event::item::FieldError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// When a refused caller may come back, unless there is reason to say otherwise.
const COME_BACK: Duration = Duration::from_secs(1);

/// A flaw of one item of a request.
#[derive(Debug, Clone, Serialize)]
pub struct ItemError {
    /// Which item, from 0.
    pub index: usize,
    /// What of it, and why.
    #[serde(flatten)]
    pub flaw: FieldError,
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
    ids: Vec<Uuid>,
    #[serde(skip)]
    allow: Option<&'static str>,
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
            retry_after: COME_BACK,
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

    /// 403: a key that may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "unauthorized", detail)
    }

    /// 404.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
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

    /// 500: a defect of ours.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 503: come back later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// 503: there is no room now.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    /// Names the ids that the events have been given, so that a repeat can carry them.
    pub fn with_ids(mut self, ids: Vec<Uuid>) -> Self {
        self.0.events = ids.len();
        self.0.ids = ids;
        self
    }

    /// Says when to come back.
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
            StatusCode::SERVICE_UNAVAILABLE => {
                // Whole seconds, rounded up; zero would ask for a busy loop.
                let seconds = self.0.retry_after.as_secs_f64().ceil().max(1.0);
                response.insert_header((RETRY_AFTER, seconds as u64));
            }
            StatusCode::UNAUTHORIZED => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"eclusa\""));
            }
            _ => {}
        }
        if let Some(allow) = self.0.allow {
            response.insert_header((ALLOW, allow));
        }
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        match serde_json::to_string(&self.0) {
            Ok(body) => response.body(body),
            Err(_) => response.finish(),
        }
    }
}

/// The answer on paths that do not exist.
pub async fn not_found(request: HttpRequest) -> Problem {
    Problem::missing(format!(
        "there is nothing at {}; events are at /v1/events",
        request.path()
    ))
}

/// The answer on paths that exist, for methods that do not.
pub async fn method_not_allowed(request: HttpRequest) -> Problem {
    let allow = match request.path() {
        "/v1/events" | "/events" => "GET, POST",
        "/v1/dead-letters/replay" | "/v1/dead-letters/purge" => "POST",
        _ => "GET",
    };
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

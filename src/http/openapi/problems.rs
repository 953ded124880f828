//! The error responses in the OpenAPI document.

use super::schema;
use std::collections::BTreeMap;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// Every error status, its description and an example of its detail.
const PROBLEMS: [(u16, &str, &str); 12] = [
    (
        400,
        "The request cannot be understood, or breaks a rule.",
        "limit is 0, but must lie between 1 and 1000",
    ),
    (
        401,
        "The API key is missing or unknown.",
        "an API key is needed: Authorization: Bearer KEY",
    ),
    (
        403,
        "The API key lacks the scope; or, without API keys, the request names a foreign host or \
         comes from a web page of another origin.",
        "the key \"shop\" lacks the scope \"read\"",
    ),
    (
        404,
        "There is none of this id.",
        "no event order-1001 in the log; if it was accepted just now, ask with ?wait=5s",
    ),
    (
        408,
        "The body did not arrive within `http.request_timeout`.",
        "the body did not arrive within 10s",
    ),
    (
        409,
        "Not possible in this state; the detail says why and what to do.",
        "follower by-type is running",
    ),
    (
        410,
        "The position belongs to another generation of the log, or the log behind it is not complete.",
        "position 1-8191 belongs to generation 1 of the log, and this is generation 2",
    ),
    (
        413,
        "The body is larger than `http.max_body`, or holds more than `http.max_items` events.",
        "the body is larger than 1.0 MiB (http.max_body)",
    ),
    (
        415,
        "The Content-Type is missing or unknown, or the body is compressed.",
        "content type \"text/csv\" is not read; send application/json or application/x-ndjson",
    ),
    (
        429,
        "As many as are allowed are at it already. Repeat the request after `Retry-After`.",
        "00000000 has as many streams as it may; end one, or wait until one lapses",
    ),
    (
        500,
        "A defect in Eclusa.",
        "a defect in Eclusa; its log says more",
    ),
    (
        503,
        "Not possible now. Repeat the request after `Retry-After`.",
        "the store cannot be read now",
    ),
];

fn problems(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    PROBLEMS
        .iter()
        .filter(|(status, ..)| statuses.contains(status))
        .map(|(status, description, detail)| {
            let example = serde_json::json!({
                "type": "about:blank",
                "title": title(*status),
                "status": status,
                "detail": detail,
            });
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(schema::ProblemBody::name())))
                .example(Some(example))
                .build();
            let mut response = ResponseBuilder::new()
                .description(*description)
                .content("application/problem+json", content);
            if let Some((name, kind, description)) = header(*status) {
                let schema = ObjectBuilder::new().schema_type(kind).build();
                let header = HeaderBuilder::new()
                    .schema(Some(schema))
                    .description(Some(description))
                    .build();
                response = response.header(name, header);
            }
            (status.to_string(), response.build().into())
        })
        .collect()
}

fn title(status: u16) -> &'static str {
    actix_web::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

fn header(status: u16) -> Option<(&'static str, Type, &'static str)> {
    match status {
        401 => Some(("www-authenticate", Type::String, "The scheme: Bearer.")),
        429 | 503 => Some((
            "retry-after",
            Type::Integer,
            "Seconds to wait before a retry.",
        )),
        _ => None,
    }
}

/// The error responses of a kind of operation.
macro_rules! responses {
    ($(#[$doc:meta])* $name:ident: $($status:literal)*) => {
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                problems(&[$($status),*])
            }
        }
    };
}

responses! {
    /// Error responses of `POST /v1/events`.
    IngestProblems: 400 401 403 408 413 415 500 503
}
responses! {
    /// Error responses of operations on dead letters.
    ActionProblems: 400 401 403 408 413 415 500 503
}
responses! {
    /// Error responses of listings.
    ListProblems: 400 401 403 500 503
}
responses! {
    /// Error responses of a query by id.
    LookupProblems: 400 401 403 404 500 503
}
responses! {
    /// Error responses of lists without parameters.
    SummaryProblems: 401 403 500 503
}
responses! {
    /// Error responses of commands to followers.
    FollowerProblems: 400 401 403 404 408 409 410 413 415 500 503
}
responses! {
    /// Error responses of commands without a body.
    CommandProblems: 400 401 403 404 409 500 503
}
responses! {
    /// Error responses of the list of runs.
    RunListProblems: 400 401 403 404 410 500 503
}
responses! {
    /// Error responses of `POST /v1/reactions/reprocess`.
    ReprocessProblems: 400 401 403 404 408 410 413 415 500 503
}
responses! {
    /// Error responses of streams of events.
    TopicProblems: 400 401 403 410 429 500 503
}
responses! {
    /// Error responses of calls of collectors.
    CollectProblems: 400 401 403 404 410 429 500 503
}
responses! {
    /// Error responses of what collectors do to their messages.
    StreamActionProblems: 400 401 403 404 408 410 413 415 500 503
}
responses! {
    /// Error responses of the commands to streams.
    StreamCommandProblems: 400 401 403 404 408 413 415 500 503
}
responses! {
    /// Error responses of the generator.
    GeneratorProblems: 400 401 403 404 500 503
}
responses! {
    /// Error responses of `/metrics`.
    MetricsProblems: 401 403 500 503
}

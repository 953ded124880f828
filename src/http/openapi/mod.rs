//! The OpenAPI document, generated from the handlers, and a page that renders it.

pub(super) mod problems;
pub(super) mod schema;

use crate::http::{
    captures, dead_letters, followers, ingest, probes, queries, reactions, schemas, streams, topics,
};
use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, ContentType};
use std::sync::LazyLock;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The page at `/docs`. It loads nothing but `/openapi.json`.
const PAGE: &str = include_str!("docs.html");
/// What the page may load, and that no other page may frame it.
const PAGE_POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
                           style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Eclusa",
        description = "Accepts events, and stores each of them once. Without API keys a request \
                       must name a loopback host or one of `http.allowed_hosts`, and must not come \
                       from a web page of another origin. Every path also answers other methods, \
                       with 405, and GET paths answer HEAD."
    ),
    tags(
        (name = "events", description = "Sending and reading events"),
        (name = "dead letters", description = "Events and messages that could not be stored"),
        (name = "captures", description = "Tables whose changes are events"),
        (name = "topics", description = "Event types, and streams of their events"),
        (name = "followers", description = "Readers of the log that have a position of their own"),
        (name = "reactions", description = "Handlers of events, and their runs"),
        (name = "pix", description = "The Pix message interface"),
        (name = "streams", description = "Messages that collectors pull"),
        (name = "schemas", description = "What the payloads of event types must satisfy"),
        (name = "operation", description = "Probes, metrics, this document")
    ),
    paths(
        ingest::post_events,
        queries::list_events,
        queries::get_event,
        dead_letters::list,
        dead_letters::get,
        dead_letters::actions::post_replay,
        dead_letters::actions::post_purge,
        followers::list,
        followers::get,
        followers::actions::pause,
        followers::actions::resume,
        followers::actions::rebuild,
        followers::actions::skip,
        followers::actions::remove,
        reactions::list,
        reactions::get,
        reactions::runs::list,
        reactions::runs::get,
        reactions::runs::of_event,
        reactions::reprocess::post_reprocess,
        reactions::actions::pause,
        reactions::actions::resume,
        reactions::actions::remove,
        reactions::actions::cancel,
        streams::pix::start,
        streams::pix::next,
        streams::pix::end,
        streams::pix::stop,
        streams::messages::post_messages,
        streams::list,
        streams::get,
        streams::place,
        streams::collect::start,
        streams::collect::next,
        streams::collect::end,
        streams::actions::nack,
        streams::actions::extend,
        streams::actions::release,
        captures::list,
        captures::get,
        captures::resnapshot,
        captures::drop_slot,
        topics::list,
        topics::events::stream,
        schemas::list,
        schemas::get,
        schemas::document,
        probes::live,
        probes::ready,
        probes::metrics,
        document
    ),
    components(schemas(schema::ProblemBody)),
    security((), ("bearer" = []), ("header" = [])),
    modifiers(&SecuritySchemes, &Alias)
)]
struct Api;

struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key of `auth.keys`, where there are any."));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let header = ApiKeyValue::with_description("x-api-key", "The same key, as a header.");
        components.add_security_scheme("header", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// `/events`, another name of `/v1/events`.
struct Alias;

impl Modify for Alias {
    fn modify(&self, document: &mut Document) {
        let paths = &mut document.paths.paths;
        if let Some(mut item) = paths.get("/v1/events").cloned() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                let id = operation.operation_id.take().unwrap_or_default();
                operation.operation_id = Some(format!("{id}_alias"));
            }
            paths.insert("/events".to_owned(), item);
        }
    }
}

/// The OpenAPI document.
pub fn build() -> Document {
    Api::openapi()
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    security(()),
    responses((status = 200, description = "The OpenAPI document.", body = Object))
)]
pub async fn document() -> HttpResponse {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string(&build()).unwrap_or_default());
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(TEXT.as_str())
}

/// `GET /docs`
pub async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, PAGE_POLICY))
        .body(PAGE)
}

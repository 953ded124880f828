//! The schemas of event types, for producers and readers: `/v1/schemas`.

use super::HttpState;
use super::auth::Caller;
use super::openapi::problems::{ListProblems, LookupProblems};
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::event::schemas::{OnInvalid, TypeSchemas};
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// All types with a schema.
#[derive(Serialize, ToSchema)]
struct SchemaTypeList {
    schemas: Vec<SchemaType>,
}

/// The versions of one type's schema.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SchemaType {
    /// The event type.
    r#type: String,
    /// What becomes of an event that breaks it.
    #[schema(value_type = OnInvalidWord)]
    on_invalid: OnInvalid,
    /// The version that an event without `schemaVersion` counts as.
    oldest: i16,
    /// The version that `?schema=latest` gives.
    newest: i16,
}

/// `refuse`: the request gets 400. `quarantine`: the event becomes a dead letter.
#[expect(
    dead_code,
    reason = "describes JSON in the OpenAPI document, and has no values"
)]
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = OnInvalid)]
enum OnInvalidWord {
    Refuse,
    Quarantine,
}

/// The schema of a type in all its versions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SchemaTypeDetail {
    #[serde(flatten)]
    summary: SchemaType,
    /// The oldest first.
    versions: Vec<SchemaVersionDetail>,
}

/// One version.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SchemaVersionDetail {
    version: i16,
    /// The JSON Schema.
    #[schema(value_type = Object)]
    schema: Value,
    /// Whether payloads of the version before are changed to become payloads of this one.
    has_upcast: bool,
}

impl SchemaType {
    fn of(schemas: &TypeSchemas) -> Self {
        Self {
            r#type: schemas.event_type.clone(),
            on_invalid: schemas.on_invalid,
            oldest: schemas.oldest(),
            newest: schemas.newest(),
        }
    }
}

/// List schemas
///
/// The event types whose payloads are checked, in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/schemas",
    tag = "schemas",
    responses((status = 200, description = "All types with a schema.", body = SchemaTypeList), ListProblems)
)]
pub async fn list(state: web::Data<HttpState>, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let settings = state.settings.get();
    let schemas = settings
        .event_schemas()
        .types()
        .map(SchemaType::of)
        .collect();
    Ok(HttpResponse::Ok().json(SchemaTypeList { schemas }))
}

/// Get the schema of a type
///
/// All its versions.
#[utoipa::path(
    get,
    path = "/v1/schemas/{type}",
    tag = "schemas",
    params(("type" = String, Path, description = "The event type.", example = "order.placed")),
    responses(
        (status = 200, description = "All versions of the schema.", body = SchemaTypeDetail),
        LookupProblems
    )
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let settings = state.settings.get();
    let schemas = settings.event_schemas();
    let schemas = schemas.of_type(&path).ok_or_else(|| unknown(&path))?;
    let versions = schemas
        .versions()
        .map(|(version, schema)| SchemaVersionDetail {
            version,
            schema: schema.document.value().clone(),
            has_upcast: !schema.upcast.is_empty(),
        });
    Ok(HttpResponse::Ok().json(SchemaTypeDetail {
        summary: SchemaType::of(schemas),
        versions: versions.collect(),
    }))
}

/// Get one version of a schema
///
/// The document as it was declared. `latest` stands for the newest version.
#[utoipa::path(
    get,
    path = "/v1/schemas/{type}/{version}",
    tag = "schemas",
    params(
        ("type" = String, Path, description = "The event type.", example = "order.placed"),
        ("version" = String, Path, description = "The version, or `latest`.", example = "1",
         pattern = "^([1-9][0-9]{0,4}|latest)$")
    ),
    responses(
        (status = 200, description = "The JSON Schema.", body = Object,
         content_type = "application/schema+json"),
        LookupProblems
    )
)]
pub async fn document(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let (event_type, version) = path.into_inner();
    let settings = state.settings.get();
    let schemas = settings.event_schemas();
    let schemas = schemas
        .of_type(&event_type)
        .ok_or_else(|| unknown(&event_type))?;
    let number = match version.as_str() {
        "latest" => Some(schemas.newest()),
        number => number.parse().ok(),
    };
    let schema = number.and_then(|number| schemas.version(number)).ok_or_else(|| {
        Problem::missing(format!(
            "{event_type} has no version {version:?} of its schema; those from {} to {} are declared",
            schemas.oldest(),
            schemas.newest()
        ))
    })?;
    Ok(HttpResponse::Ok()
        .content_type("application/schema+json")
        .body(schema.document.text().to_owned()))
}

fn unknown(event_type: &str) -> Problem {
    Problem::missing(format!(
        "{event_type:?} has no schema; GET /v1/schemas names the types that have one"
    ))
}

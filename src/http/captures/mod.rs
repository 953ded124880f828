//! Captures: what they do, new snapshots, and the end of a slot.

pub mod view;

use super::HttpState;
use super::auth::Caller;
use super::body;
use super::commands::not_done;
use super::listing::unreadable;
use super::openapi::problems::{FollowerProblems, LookupProblems, SummaryProblems};
use super::problem::Problem;
use crate::capture::CaptureStatus;
use crate::capture::commands::{Asked, drop_slot as ask_to_drop, resnapshot as ask_again};
use crate::config::auth::Scope;
use crate::store::StoreError;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;
use view::{CaptureList, CaptureView};

/// Which tables are read again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResnapshotBody {
    /// With their schemas; all of the capture unless given.
    #[serde(default)]
    #[schema(example = json!(["public.product"]))]
    tables: Vec<String>,
}

/// List captures
///
/// The captures that were ever begun, and those of this process that could not begin yet, by name. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/captures",
    tag = "captures",
    responses((status = 200, description = "The captures.", body = CaptureList), SummaryProblems)
)]
pub async fn list(state: web::Data<HttpState>, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let rows = state.whole.captures().await;
    let rows = rows.map_err(|error| unreadable(&error))?;
    let views = rows.into_iter().map(|row| {
        let status = status(&state, &row.name);
        CaptureView::new(row, status)
    });
    let captures = views.collect::<Result<Vec<_>, _>>();
    let mut captures = captures.map_err(|error| unreadable(&error))?;
    for watch in state.captures.watches() {
        if captures.iter().all(|begun| begun.name != watch.name()) {
            captures.push(CaptureView::not_begun(watch.name(), watch.status()));
        }
    }
    captures.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(HttpResponse::Ok().json(CaptureList { captures }))
}

/// Get a capture
///
/// Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/captures/{name}",
    tag = "captures",
    params(("name" = String, Path, description = "The capture's name.", example = "shop")),
    responses((status = 200, description = "The capture.", body = CaptureView), LookupProblems)
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    show(&state, &path).await
}

/// Take a new snapshot
///
/// The rows of these tables, or of all, are read again as records of the operation `r`, while changes are captured. A
/// capture that has stopped begins again with a new slot, and reads all tables. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/captures/{name}/resnapshot",
    tag = "captures",
    params(("name" = String, Path, description = "The capture's name.", example = "shop")),
    request_body(content = ResnapshotBody, example = json!({"tables": []})),
    responses((status = 200, description = "The capture.", body = CaptureView), FollowerProblems)
)]
pub async fn resnapshot(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    caller?.require(Scope::Admin)?;
    let body: ResnapshotBody = body::object(&request, &state, payload).await?;
    let asked = ask_again(&*state.whole, &path, &body.tables).await;
    obeyed(&state, asked, &path)?;
    show(&state, &path).await
}

/// Drop a slot
///
/// The capture drops its slot on the captured server, and its publication if its role owns that, and stops; the server
/// then keeps no log for it. A new snapshot begins it again. Needs the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/captures/{name}/drop-slot",
    tag = "captures",
    params(("name" = String, Path, description = "The capture's name.", example = "shop")),
    responses((status = 200, description = "The capture.", body = CaptureView), FollowerProblems)
)]
pub async fn drop_slot(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Admin)?;
    obeyed(&state, ask_to_drop(&*state.whole, &path).await, &path)?;
    show(&state, &path).await
}

fn obeyed(state: &HttpState, asked: Result<Asked, StoreError>, name: &str) -> Result<(), Problem> {
    match asked.map_err(|error| not_done(&error))? {
        Asked::Done => {
            tracing::info!(capture = name, "capture commanded");
            Ok(())
        }
        Asked::Unknown if status(state, name).is_some() => Err(Problem::conflict(format!(
            "the capture {name} has not begun; GET /v1/captures/{name} says why"
        ))),
        Asked::Unknown => Err(Problem::unknown("capture", name)),
        Asked::UnknownTable(table) => Err(Problem::bad_request(format!(
            "the capture {name} has no table {table}; GET /v1/captures/{name} lists them"
        ))),
    }
}

async fn show(state: &HttpState, name: &str) -> Result<HttpResponse, Problem> {
    let row = state.whole.capture(name).await;
    let row = row.map_err(|error| unreadable(&error))?;
    let view = match (row, status(state, name)) {
        (Some(row), status) => CaptureView::new(row, status).map_err(|error| unreadable(&error))?,
        (None, Some(status)) => CaptureView::not_begun(name, status),
        (None, None) => return Err(Problem::unknown("capture", name)),
    };
    Ok(HttpResponse::Ok().json(view))
}

/// What this process knows of a capture that it declares.
fn status(state: &HttpState, name: &str) -> Option<CaptureStatus> {
    let mut watches = state.captures.watches().iter();
    watches
        .find(|watch| watch.name() == name)
        .map(|watch| watch.status())
}

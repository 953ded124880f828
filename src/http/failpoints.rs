//! Setting failpoints while the process runs; only in builds for tests.

use super::problem::Problem;
use crate::supervision::failpoint;
use actix_web::{HttpResponse, web};

/// `PUT /failpoints/{name}` with the action as the body.
pub async fn put(name: web::Path<String>, action: String) -> Result<HttpResponse, Problem> {
    failpoint::set(&name, &action).map_err(Problem::bad_request)?;
    Ok(HttpResponse::NoContent().finish())
}

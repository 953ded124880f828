//! What every request passes: it is counted, timed, and logged at debug.

use super::HttpState;
use super::problem::Problem;
use crate::supervision::Phase;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONNECTION, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// The middleware.
///
/// # Errors
/// Whatever the handler gave.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    // The pattern, not the path: paths are made by callers, and would be series without end.
    let route = request
        .match_pattern()
        .unwrap_or_else(|| "unmatched".to_owned());
    let method = known_method(request.method().as_str());
    let state = request.app_data::<web::Data<HttpState>>().cloned();
    // A panic in a handler is one request's misfortune; its caller hears that it was ours.
    let mut result = match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(result) => result,
        Err(_panic) => Err(Problem::internal("a defect in Eclusa; its log says more").into()),
    };
    if let Some(state) = state {
        let status = match &result {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut digits = [0; 3];
        state
            .metrics
            .http_requests
            .with_label_values(&[&route, method, status_text(status.as_u16(), &mut digits)])
            .inc();
        state
            .metrics
            .http_seconds
            .with_label_values(&[&route])
            .observe(seconds);
        tracing::debug!(route, method, status = status.as_u16(), seconds, "request");
        if let (Ok(response), true) = (&mut result, state.lifecycle.phase() != Phase::Running) {
            // Clients of a process that is leaving open their next connection elsewhere.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
    result
}

/// Methods are made by callers too.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// A status as its three digits, without an allocation.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    let mut rest = status;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

//! Probes and metrics: `/health/live`, `/health/ready` and `/metrics`.

use super::HttpState;
use super::auth::Caller;
use super::openapi::problems::MetricsProblems;
use super::problem::Problem;
use crate::capture::SlotWatch;
use crate::config::auth::Scope;
use crate::supervision::Phase;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// Time-out of the store's ping. Kubernetes gives a probe one second.
const PING_TIMEOUT: Duration = Duration::from_millis(900);
/// An actor whose messages wait this long without one being taken is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// The response of a liveness probe.
#[derive(Serialize, ToSchema)]
struct Liveness {
    #[schema(example = "alive")]
    status: &'static str,
}

/// The response of a readiness probe.
#[derive(Serialize, ToSchema)]
struct Readiness {
    status: ReadinessStatus,
    /// `store`, `broker` (in full mode), `captures` (if there are some), `actors` and `lifecycle`.
    parts: BTreeMap<&'static str, Part>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ReadinessStatus {
    Ready,
    Unready,
}

/// A part of the process.
#[derive(Serialize, ToSchema)]
struct Part {
    status: PartStatus,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PartStatus {
    Up,
    Down,
}

/// Liveness: the process answers
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operation",
    security(()),
    responses((status = 200, description = "The process answers.", body = Liveness))
)]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "alive" })
}

/// Readiness: an event can be accepted
///
/// A 503 names the part that is down. In full mode `ready` does not mean that rows are written: look
/// at the parts.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operation",
    security(()),
    responses(
        (status = 200, description = "Events can be accepted.", body = Readiness,
         example = json!({"status": "ready", "parts": {"store": {"status": "up"},
             "actors": {"status": "up"}, "lifecycle": {"status": "up"}}})),
        (status = 503, description = "Events cannot be accepted.", body = Readiness,
         headers(("retry-after" = u64, description = "Seconds to wait before a retry.")),
         example = json!({"status": "unready", "parts": {
             "store": {"status": "down", "detail": "circuit breaker open"},
             "actors": {"status": "up"}, "lifecycle": {"status": "up"}}}))
    )
)]
pub async fn ready(state: web::Data<HttpState>) -> HttpResponse {
    let mut parts = BTreeMap::new();
    let mut ready = true;
    let mut part = |name: &'static str, up: bool, needed: bool, detail: String| {
        ready &= up || !needed;
        let part = if up {
            Part {
                status: PartStatus::Up,
                detail: None,
            }
        } else {
            Part {
                status: PartStatus::Down,
                detail: Some(detail),
            }
        };
        parts.insert(name, part);
    };

    let breaker = format!("circuit breaker {}", state.admission.store.state().as_str());
    let needs_store = state.admission.needs_store();
    match tokio::time::timeout(PING_TIMEOUT, state.store.ping()).await {
        Ok(Ok(())) => part(
            "store",
            state.admission.store.is_closed(),
            needs_store,
            breaker,
        ),
        Ok(Err(error)) => part("store", false, needs_store, error.to_string()),
        Err(_) => part(
            "store",
            false,
            needs_store,
            format!("no answer within {PING_TIMEOUT:?}"),
        ),
    }
    if let Some(up) = state.admission.broker_is_up() {
        // While the store stands in for the broker, events can be accepted all the same.
        let needed = !state.admission.store_may_be_used();
        let detail = state.admission.broker_detail();
        part("broker", up, needed, detail);
    }
    let captures = state.captures.watches();
    if !captures.is_empty() {
        // What comes over HTTP or AMQP does not need them.
        let troubles: Vec<String> = captures.iter().filter_map(SlotWatch::trouble).collect();
        part("captures", troubles.is_empty(), false, troubles.join("; "));
    }
    let stuck = state.health.stuck(STUCK);
    let detail = format!("no progress for {STUCK:?}: {}", stuck.join(", "));
    part("actors", stuck.is_empty(), true, detail);
    let serving = state.lifecycle.phase() == Phase::Running;
    part("lifecycle", serving, true, "stopping".to_owned());

    let mut response = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.insert_header((CACHE_CONTROL, "no-store"));
    if !ready {
        response.insert_header(("retry-after", "1"));
    }
    let status = if ready {
        ReadinessStatus::Ready
    } else {
        ReadinessStatus::Unready
    };
    response.json(Readiness { status, parts })
}

/// Metrics in the text format of Prometheus
///
/// With `auth.public_metrics = false` it needs a key with the scope `read`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        MetricsProblems
    )
)]
pub async fn metrics(
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
) -> Result<HttpResponse, Problem> {
    if !state.settings.get().auth.public_metrics {
        caller?.require(Scope::Read)?;
    }
    state.letter_count.refresh(&state.letters, &state.metrics);
    let in_flight = i64::try_from(state.budget.used()).unwrap_or(i64::MAX);
    state.metrics.in_flight_bytes.set(in_flight);
    let topics = i64::try_from(state.topics.bytes_under_way()).unwrap_or(i64::MAX);
    state.metrics.topic_bytes.set(topics);
    let text = state.metrics.render().map_err(|error| {
        tracing::error!(%error, "cannot render the metrics");
        Problem::unavailable("the metrics cannot be rendered")
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(text))
}

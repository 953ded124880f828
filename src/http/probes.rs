//! `/health/live`, `/health/ready` and `/metrics`.

use super::HttpState;
use super::auth::Caller;
use super::problem::Problem;
use crate::config::auth::Scope;
use crate::supervision::Phase;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long the store may take to say that it is there. Kubernetes gives a probe one second.
const PATIENCE: Duration = Duration::from_millis(900);
/// An actor whose messages wait this long without one being taken is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// `GET /health/live`: the process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// `GET /health/ready`: an event can be taken now, or which part stands in the way.
pub async fn ready(state: web::Data<HttpState>) -> HttpResponse {
    let mut parts = Map::new();
    let mut ready = true;
    let mut part = |name: &str, up: bool, needed: bool, detail: String| {
        ready &= up || !needed;
        let status = if up { "up" } else { "down" };
        let mut value = json!({"status": status});
        if let (false, Value::Object(map)) = (up, &mut value) {
            map.insert("detail".to_owned(), Value::String(detail));
        }
        parts.insert(name.to_owned(), value);
    };

    let breaker = format!("circuit breaker {}", state.doors.store.state().as_str());
    let needs_store = state.doors.needs_store();
    match tokio::time::timeout(PATIENCE, state.store.ping()).await {
        Ok(Ok(())) => part("store", state.doors.store.is_closed(), needs_store, breaker),
        Ok(Err(error)) => part("store", false, needs_store, error.to_string()),
        Err(_) => part(
            "store",
            false,
            needs_store,
            format!("no answer within {PATIENCE:?}"),
        ),
    }
    if let Some(up) = state.doors.broker_is_up() {
        // While the store stands in for it, events can be taken all the same.
        let needed = state.doors.refuses;
        let detail = state.doors.broker_detail();
        part("broker", up, needed, detail);
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
    response.json(json!({
        "status": if ready { "ready" } else { "unready" },
        "parts": parts,
    }))
}

/// `GET /metrics`
pub async fn metrics(
    state: web::Data<HttpState>,
    caller: Result<Caller, Problem>,
) -> Result<HttpResponse, Problem> {
    if !state.settings.get().auth.public_metrics {
        caller?.require(Scope::Read)?;
    }
    state
        .letter_count
        .refresh(&*state.letters, &state.metrics)
        .await;
    let in_flight = i64::try_from(state.budget.used()).unwrap_or(i64::MAX);
    state.metrics.in_flight_bytes.set(in_flight);
    let text = state.metrics.render().map_err(|error| {
        tracing::error!(%error, "cannot render the metrics");
        Problem::unavailable("the metrics cannot be rendered")
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(text))
}

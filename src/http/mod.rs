//! The HTTP door. This file is the table of routes; each group has a file of its own.

pub mod auth;
pub mod body;
pub mod doors;
#[cfg(feature = "failpoints")]
mod failpoints;
pub mod ingest;
pub mod observe;
pub mod probes;
pub mod problem;
pub mod queries;

use crate::actors::{BatchAccumulator, HttpIngest};
use crate::config::LiveSettings;
use crate::event::Awaited;
use crate::metrics::Metrics;
use crate::store::EventStore;
use crate::supervision::{Budget, HealthBoard, Lifecycle, Mailbox};
use actix_web::{guard, web};
use doors::Doors;
use std::sync::Arc;

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct HttpState {
    /// Settings; limits and keys change at run time.
    pub settings: LiveSettings,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// This worker's ingest actor.
    pub ingest: Mailbox<HttpIngest>,
    /// For readers who wait.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// Whether events can be made durable now.
    pub doors: Doors,
    /// Who waits for which event.
    pub awaited: Awaited,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// Which actors are stuck.
    pub health: HealthBoard,
    /// Whether the process is leaving.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// All routes.
pub fn routes(config: &mut web::ServiceConfig) {
    let read_only =
        |path: &str| web::resource(path).default_service(web::to(problem::method_not_allowed));
    // Load balancers probe with HEAD; the body is left out on the way.
    let get = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    let events = |path: &str| {
        web::resource(path)
            .route(web::post().to(ingest::post_events))
            .route(get().to(queries::list_events))
            .default_service(web::to(problem::method_not_allowed))
    };
    config
        .service(events("/v1/events"))
        .service(events("/events"))
        .service(read_only("/v1/events/{id}").route(get().to(queries::get_event)))
        .service(read_only("/health/live").route(get().to(probes::live)))
        .service(read_only("/health/ready").route(get().to(probes::ready)))
        .service(read_only("/metrics").route(get().to(probes::metrics)));
    #[cfg(feature = "failpoints")]
    config.service(web::resource("/failpoints/{name:.*}").route(web::put().to(failpoints::put)));
    config.default_service(web::to(problem::not_found));
}

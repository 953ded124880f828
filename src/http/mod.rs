//! The HTTP door. This file is the table of routes; each group has a file of its own.

pub mod auth;
pub mod body;
pub mod dead_letters;
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
use crate::retry::replay::Replayer;
use crate::store::{DeadLetterStore, EventStore};
use crate::supervision::{Budget, HealthBoard, Lifecycle, Mailbox};
use actix_web::{guard, web};
use dead_letters::count::LetterCount;
use doors::Doors;
use std::sync::Arc;

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct HttpState {
    /// Settings; limits and keys change at run time.
    pub settings: LiveSettings,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// What was put aside.
    pub letters: Arc<dyn DeadLetterStore>,
    /// The number of those, for the metrics.
    pub letter_count: LetterCount,
    /// The way for them back into the flow.
    pub replayer: Replayer,
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
    // Load balancers probe with HEAD; the body is left out on the way.
    let get = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    let events = |path: &str| {
        web::resource(path)
            .route(web::post().to(ingest::post_events))
            .route(get().to(queries::list_events))
            .default_service(web::to(problem::method_not_allowed))
    };
    let one_method =
        |path: &str| web::resource(path).default_service(web::to(problem::method_not_allowed));
    config
        .service(one_method("/v1/dead-letters").route(get().to(dead_letters::list)))
        .service(
            one_method("/v1/dead-letters/replay")
                .route(web::post().to(dead_letters::actions::post_replay)),
        )
        .service(
            one_method("/v1/dead-letters/purge")
                .route(web::post().to(dead_letters::actions::post_purge)),
        )
        .service(one_method("/v1/dead-letters/{id}").route(get().to(dead_letters::get)))
        .service(events("/v1/events"))
        .service(events("/events"))
        .service(one_method("/v1/events/{id}").route(get().to(queries::get_event)))
        .service(one_method("/health/live").route(get().to(probes::live)))
        .service(one_method("/health/ready").route(get().to(probes::ready)))
        .service(one_method("/metrics").route(get().to(probes::metrics)));
    #[cfg(feature = "failpoints")]
    config.service(web::resource("/failpoints/{name:.*}").route(web::put().to(failpoints::put)));
    config.default_service(web::to(problem::not_found));
}

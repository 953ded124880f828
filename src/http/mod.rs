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

use crate::actors::{HttpIngest, Lanes};
use crate::config::LiveSettings;
use crate::event::{Awaited, Completions};
use crate::metrics::Metrics;
use crate::retry::replay::Replayer;
use crate::store::{DeadLetterStore, EventStore};
use crate::supervision::{Budget, HealthBoard, Lifecycle, Mailbox};
use actix_web::{Resource, Route, guard, web};
use dead_letters::count::LetterCount;
use doors::Doors;
use observe::Observe;
use prometheus::IntCounter;
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
    /// This worker's answers.
    pub completions: Completions,
    /// Events taken at this door.
    pub accepted: IntCounter,
    /// For readers who wait.
    pub lanes: Lanes,
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

/// All routes, with their metrics. What takes most requests stands first: paths are compared in
/// this order.
pub fn routes(config: &mut web::ServiceConfig, metrics: &Arc<Metrics>) {
    let site = |path: &'static str| Site::new(path, metrics);
    let events = |path| {
        site(path)
            .route(web::post().to(ingest::post_events))
            .route(get().to(queries::list_events))
    };
    config
        .service(events("/v1/events").done())
        .service(events("/events").done())
        .service(
            site("/v1/events/{id}")
                .route(get().to(queries::get_event))
                .done(),
        )
        .service(
            site("/v1/dead-letters")
                .route(get().to(dead_letters::list))
                .done(),
        )
        .service(
            site("/v1/dead-letters/replay")
                .route(web::post().to(dead_letters::actions::post_replay))
                .done(),
        )
        .service(
            site("/v1/dead-letters/purge")
                .route(web::post().to(dead_letters::actions::post_purge))
                .done(),
        )
        .service(
            site("/v1/dead-letters/{id}")
                .route(get().to(dead_letters::get))
                .done(),
        )
        .service(site("/health/live").route(get().to(probes::live)).done())
        .service(site("/health/ready").route(get().to(probes::ready)).done())
        .service(site("/metrics").route(get().to(probes::metrics)).done());
    #[cfg(feature = "failpoints")]
    config.service(web::resource("/failpoints/{name:.*}").route(web::put().to(failpoints::put)));
    config.default_service(
        web::route()
            .to(problem::not_found)
            .wrap(Observe::new("unmatched", metrics)),
    );
}

/// Load balancers probe with HEAD; the body is left out on the way.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A path and its routes, each of them observed.
struct Site<'a> {
    resource: Resource,
    path: &'static str,
    metrics: &'a Arc<Metrics>,
}

impl<'a> Site<'a> {
    fn new(path: &'static str, metrics: &'a Arc<Metrics>) -> Self {
        Self {
            resource: web::resource(path),
            path,
            metrics,
        }
    }

    fn route(mut self, route: Route) -> Self {
        let observe = Observe::new(self.path, self.metrics);
        self.resource = self.resource.route(route.wrap(observe));
        self
    }

    /// Other methods are told which ones there are.
    fn done(self) -> Resource {
        let observe = Observe::new(self.path, self.metrics);
        self.resource
            .default_service(web::route().to(problem::method_not_allowed).wrap(observe))
    }
}

//! The HTTP API. This file is the table of routes; each group of handlers has a file of its own.

pub mod auth;
pub mod body;
pub mod captures;
mod commands;
pub mod connection;
pub mod dead_letters;
pub mod followers;
#[cfg(feature = "failpoints")]
mod failpoints;
pub mod ingest;
mod listing;
pub mod observe;
pub mod openapi;
pub mod probes;
pub mod problem;
pub mod queries;
pub mod reactions;
mod same_origin;
pub mod schemas;
pub mod streams;
pub mod topics;

use crate::batch::writer_partitions::WriterPartitions;
use crate::capture::Captures;
use crate::collectors::Polls;
use crate::config::LiveSettings;
use crate::dead_letters::replay::Replayer;
use crate::event::budget::Budget;
use crate::event::read_waiters::ReadWaiters;
use crate::followers::RunningFollowers;
use crate::ingest::admission::AdmissionControl;
use crate::ingest::completions::Completions;
use crate::ingest::http_ingest::HttpIngest;
use crate::metrics::Metrics;
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::{CommitLog, DeadLetterStore, EventStore, FollowerStore, Store};
use crate::supervision::{HealthBoard, Lifecycle, Mailbox};
use crate::topics::Topics;
use actix_web::http::Method;
use actix_web::{FromRequest, Handler, HttpRequest, Resource, Responder, Route, guard, web};
use dead_letters::count::DeadLetterCount;
use observe::{Access, Observe};
use prometheus::IntCounter;
use std::sync::Arc;

/// State shared by the handlers of one worker.
#[derive(Clone)]
pub struct HttpState {
    /// Settings; some change at run time.
    pub settings: LiveSettings,
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// The dead letters.
    pub letters: Arc<dyn DeadLetterStore>,
    /// Their number, for the metrics.
    pub letter_count: DeadLetterCount,
    /// Sends dead letters into the flow again.
    pub replayer: Replayer,
    /// This worker's ingest actor.
    pub ingest: Mailbox<HttpIngest>,
    /// Takes the events that are to become dead letters.
    pub retry: Mailbox<RetrySupervisor>,
    /// Completed requests of this worker.
    pub completions: Completions,
    /// Counter of events accepted over HTTP.
    pub accepted: IntCounter,
    /// The writers, for readers that wait for an event.
    pub partitions: WriterPartitions,
    /// Whether events can be made durable now.
    pub admission: AdmissionControl,
    /// Readers that wait for an event.
    pub read_waiters: ReadWaiters,
    /// The end of the log.
    pub followers: RunningFollowers,
    /// The followers' records.
    pub follower_store: Arc<dyn FollowerStore>,
    /// The log in the order of commits.
    pub log: Arc<dyn CommitLog>,
    /// The store with every capability, for reactions and their runs.
    pub whole: Arc<dyn Store>,
    /// Answers collectors.
    pub polls: Polls,
    /// Streams of events.
    pub topics: Topics,
    /// The captures of the settings.
    pub captures: Captures,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// Which actors are stuck.
    pub health: HealthBoard,
    /// Whether the process is stopping.
    pub lifecycle: Lifecycle,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Registers all routes.
pub fn routes(config: &mut web::ServiceConfig, metrics: &Arc<Metrics>) {
    for site in table(metrics) {
        config.service(site.into_resource());
    }
    #[cfg(feature = "failpoints")]
    config.service(web::resource("/failpoints/{name:.*}").route(web::put().to(failpoints::put)));
    config.default_service(web::route().to(problem::not_found).wrap(Observe::new(
        "unmatched",
        Access::SameOrigin,
        metrics,
    )));
}

/// The table of routes. Paths are compared in this order, so those with most requests come first.
fn table(metrics: &Arc<Metrics>) -> Vec<Site> {
    let site = |path: &'static str| Site::new(path, Access::SameOrigin, metrics);
    let open = |path: &'static str| Site::new(path, Access::Open, metrics);
    let events = |path| {
        site(path)
            .post(ingest::post_events)
            .get(queries::list_events)
    };
    vec![
        events("/v1/events"),
        events("/events"),
        site("/v1/events/{id}").get(queries::get_event),
        site("/v1/dead-letters").get(dead_letters::list),
        site("/v1/dead-letters/replay").post(dead_letters::actions::post_replay),
        site("/v1/dead-letters/purge").post(dead_letters::actions::post_purge),
        site("/v1/dead-letters/{id}").get(dead_letters::get),
        site("/v1/followers").get(followers::list),
        site("/v1/followers/{name}").get(followers::get),
        site("/v1/followers/{name}/pause").post(followers::actions::pause),
        site("/v1/followers/{name}/resume").post(followers::actions::resume),
        site("/v1/followers/{name}/rebuild").post(followers::actions::rebuild),
        site("/v1/followers/{name}/skip").post(followers::actions::skip),
        site("/v1/followers/{name}/remove").post(followers::actions::remove),
        site("/v1/reactions").get(reactions::list),
        site("/v1/reactions/reprocess").post(reactions::reprocess::post_reprocess),
        site("/v1/reactions/{name}").get(reactions::get),
        site("/v1/reactions/{name}/runs").get(reactions::runs::list),
        site("/v1/reactions/{name}/pause").post(reactions::actions::pause),
        site("/v1/reactions/{name}/resume").post(reactions::actions::resume),
        site("/v1/reactions/{name}/remove").post(reactions::actions::remove),
        site("/v1/runs/{id}").get(reactions::runs::get),
        site("/v1/runs/{id}/cancel").post(reactions::actions::cancel),
        site("/v1/events/{id}/runs").get(reactions::runs::of_event),
        site("/v1/captures").get(captures::list),
        site("/v1/captures/{name}").get(captures::get),
        site("/v1/captures/{name}/resnapshot").post(captures::resnapshot),
        site("/v1/captures/{name}/drop-slot").post(captures::drop_slot),
        site("/v1/schemas").get(schemas::list),
        site("/v1/schemas/{type}").get(schemas::get),
        site("/v1/schemas/{type}/{version}").get(schemas::document),
        site("/api/pix/{ispb}/stream/start").collect(streams::pix::start),
        site("/api/pix/{ispb}/stream/stop")
            .collect(streams::pix::stop)
            .delete(streams::pix::stop),
        site("/api/pix/{ispb}/stream/{interationId}")
            .collect(streams::pix::next)
            .delete(streams::pix::end),
        site("/api/util/msgs/{ispb}/{number}").post(streams::messages::post_messages),
        site("/v1/topics").get(topics::list),
        site("/v1/topics/{type}/events").collect(topics::events::stream),
        site("/v1/streams").get(streams::list),
        site("/v1/streams/{stream}").get(streams::get),
        site("/v1/streams/{stream}/{key}").get(streams::place),
        site("/v1/streams/{stream}/{key}/release").post(streams::actions::release),
        site("/v1/streams/{stream}/{key}/start").collect(streams::collect::start),
        site("/v1/streams/{stream}/{key}/{token}")
            .collect(streams::collect::next)
            .delete(streams::collect::end),
        site("/v1/streams/{stream}/{key}/{token}/nack").post(streams::actions::nack),
        site("/v1/streams/{stream}/{key}/{token}/extend").post(streams::actions::extend),
        open("/health/live").get(probes::live),
        open("/health/ready").get(probes::ready),
        site("/metrics").get(probes::metrics),
        open("/openapi.json").get(openapi::document),
        open("/docs").get(openapi::page),
    ]
}

/// A path and its routes, each of them observed.
struct Site {
    resource: Resource,
    path: &'static str,
    access: Access,
    methods: Vec<Method>,
    metrics: Arc<Metrics>,
}

impl Site {
    fn new(path: &'static str, access: Access, metrics: &Arc<Metrics>) -> Self {
        Self {
            resource: web::resource(path),
            path,
            access,
            methods: Vec::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Load balancers probe with HEAD, which leaves out the body.
    fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        let route = web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
        self.route(Method::GET, route.to(handler))
    }

    fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.route(Method::POST, web::post().to(handler))
    }

    /// Without HEAD: a collector's call hands messages out, and a stream takes the place of one.
    fn collect<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.route(Method::GET, web::get().to(handler))
    }

    fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args, Output: Responder + 'static>,
        Args: FromRequest + 'static,
    {
        self.route(Method::DELETE, web::delete().to(handler))
    }

    fn route(mut self, method: Method, route: Route) -> Self {
        let observe = Observe::new(self.path, self.access, &self.metrics);
        self.resource = self.resource.route(route.wrap(observe));
        self.methods.push(method);
        self
    }

    /// Other methods get a 405 that names these.
    fn into_resource(self) -> Resource {
        let mut allow: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        allow.sort_unstable();
        let allow = allow.join(", ");
        let refuse = move |request: HttpRequest| {
            std::future::ready(problem::method_not_allowed(&request, allow.clone()))
        };
        let observe = Observe::new(self.path, self.access, &self.metrics);
        self.resource
            .default_service(web::route().to(refuse).wrap(observe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_in_the_openapi_document_and_no_other() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let registered: BTreeSet<String> = table(&metrics)
            .iter()
            // Documents the API, and is not part of it.
            .filter(|site| site.path != "/docs")
            .flat_map(|site| {
                let method = |method: &Method| format!("{method} {}", site.path);
                site.methods.iter().map(method).collect::<Vec<_>>()
            })
            .collect();
        let document = serde_json::to_value(openapi::build()).unwrap();
        let documented: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                let name = |method: &String| format!("{} {path}", method.to_uppercase());
                methods.map(name).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(registered, documented);
    }
}

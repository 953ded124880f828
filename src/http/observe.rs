//! The middleware of every route: it refuses the requests of foreign web pages
//! (`same_origin`), counts, times, and logs at debug.
//!
//! It sits on each route, not on the application: there it knows the route's pattern and keeps the
//! handles of its metrics, so that a request looks up neither.

use super::HttpState;
use super::problem::Problem;
use super::same_origin;
use crate::metrics::Metrics;
use crate::supervision::Phase;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::header::{CONNECTION, HeaderValue};
use actix_web::{Error, web};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use prometheus::{Histogram, IntCounter};
use std::cell::RefCell;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Which requests a route takes when there are no API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Those that pass `same_origin::check`.
    SameOrigin,
    /// All: probes, which may come without a `Host`, and documents that hold no data.
    Open,
}

/// The middleware of one route of one worker.
pub struct Observe(Rc<Route>);

impl Observe {
    /// For the route with this pattern. The pattern, not the path: paths are made by callers, and
    /// would be series without end.
    pub fn new(route: &'static str, access: Access, metrics: &Arc<Metrics>) -> Self {
        Self(Rc::new(Route {
            route,
            access,
            seconds: metrics.http_seconds.with_label_values(&[route]),
            answers: RefCell::default(),
            metrics: Arc::clone(metrics),
        }))
    }
}

/// A route and its metrics.
struct Route {
    route: &'static str,
    access: Access,
    seconds: Histogram,
    /// Counters of the answers given so far, by method and status: few, and the usual one first.
    answers: RefCell<Vec<(&'static str, u16, IntCounter)>>,
    metrics: Arc<Metrics>,
}

impl Route {
    fn count(&self, method: &'static str, status: u16) {
        let mut answers = self.answers.borrow_mut();
        let known = answers
            .iter()
            .find(|(known, code, _)| *code == status && *known == method);
        if let Some((_, _, counter)) = known {
            counter.inc();
            return;
        }
        let digits = status.to_string();
        let counter = self
            .metrics
            .http_requests
            .with_label_values(&[self.route, method, &digits]);
        counter.inc();
        answers.push((method, status, counter));
    }
}

impl<S> Transform<S, ServiceRequest> for Observe
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Observed<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, Self::InitError>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Observed {
            service,
            route: Rc::clone(&self.0),
        }))
    }
}

/// A route's service under observation.
pub struct Observed<S> {
    service: S,
    route: Rc<Route>,
}

impl<S> Service<ServiceRequest> for Observed<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let started = Instant::now();
        let route = Rc::clone(&self.route);
        let method = known_method(request.method().as_str());
        let state = request.app_data::<web::Data<HttpState>>().cloned();
        let checked = match (route.access, &state) {
            (Access::SameOrigin, Some(state)) => {
                same_origin::check(&state.settings.get(), request.headers())
            }
            _ => Ok(()),
        };
        let answer = match checked {
            Ok(()) => AssertUnwindSafe(self.service.call(request))
                .catch_unwind()
                .left_future(),
            Err(problem) => {
                tracing::debug!(route = route.route, %problem, "request refused");
                ready(Ok(Err(problem.into()))).right_future()
            }
        };
        Box::pin(async move {
            // A panic in a handler fails this request alone, with a 500.
            let mut result = answer.await.unwrap_or_else(|_panic| {
                Err(Problem::internal("a defect in Eclusa; its log says more").into())
            });
            let status = match &result {
                Ok(response) => response.status(),
                Err(error) => error.as_response_error().status_code(),
            };
            let seconds = started.elapsed().as_secs_f64();
            route.count(method, status.as_u16());
            route.seconds.observe(seconds);
            let pattern = route.route;
            tracing::debug!(
                route = pattern,
                method,
                status = status.as_u16(),
                seconds,
                "request"
            );
            let leaving = state.is_some_and(|state| state.lifecycle.phase() != Phase::Running);
            if let (Ok(response), true) = (&mut result, leaving) {
                // Clients of a process that is leaving open their next connection elsewhere.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            result
        })
    }
}

/// Methods are made by callers too.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

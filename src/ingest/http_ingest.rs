//! `HttpIngest`: one in every HTTP worker. Makes the requests' events durable: in direct mode
//! through the accumulator into the store, in full mode as frames on the work queue.
//!
//! With an order by user there is a line for each shard, and one frame of it on its way at a time: so
//! nothing goes ahead of a frame that does not arrive.
//!
//! Nothing is waited for to fill a frame: the first event goes at once, and what arrives while it
//! is being confirmed travels together in the next one.

use super::completions::Completions;
use super::ingest_queue::IngestQueue;
use super::publish_buffer::{InFlightPermit, PublishBuffer};
use crate::broker::error::kind_of_publish;
use crate::broker::{Destination, FrameBounds, OutgoingFrame, PublishError, Publisher};
use crate::event::{Delivery, Outcome, Shards};
use crate::metrics::Metrics;
use crate::retry::breaker::Breaker;
use crate::supervision::{ActorMessage, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where events become durable.
#[derive(Clone)]
pub enum IngestTarget {
    Direct(IngestQueue),
    /// On the work queue.
    Broker {
        publisher: Box<Publisher>,
        /// Whether the broker is there.
        breaker: Breaker,
        /// Where events go while it is not; nowhere if they are to be refused.
        fallback: Option<IngestQueue>,
        /// The shards that users are spread over, if their events keep an order.
        shards: Option<Shards>,
        /// What waits, of all workers.
        publish_buffer: PublishBuffer,
        /// Frames that may be on their way at once.
        frames_in_flight: usize,
        /// How large a frame may be.
        bounds: FrameBounds,
    },
}

/// What the actor is wired to.
#[derive(Clone)]
pub struct HttpIngestParams {
    /// Where events become durable.
    pub target: IngestTarget,
    /// The answers for this worker's requests.
    pub completions: Completions,
    pub metrics: Arc<Metrics>,
}

pub struct HttpIngest {
    params: HttpIngestParams,
    pending: VecDeque<Delivery>,
    /// With an order: what waits for its shard, by shard.
    lines: Vec<Line>,
    /// A flush is already due at the end of this turn.
    flushing: bool,
}

/// What waits for a shard.
#[derive(Default)]
struct Line {
    pending: VecDeque<Delivery>,
    frame_in_flight: bool,
}

/// The events of a request. Their outcomes go to the opened request
/// ([`crate::ingest::request::open`]), even if the actor crashes over the message.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ingest(pub Vec<Delivery>);

impl ActorMessage for Ingest {
    fn name(&self) -> &'static str {
        "ingest"
    }
}

impl HttpIngest {
    /// An actor with nothing pending.
    pub fn new(params: HttpIngestParams) -> Self {
        Self {
            params,
            pending: VecDeque::new(),
            lines: Vec::new(),
            flushing: false,
        }
    }

    /// Sends what has gathered in this turn of the event loop.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flushing = false;
        failpoint::hit("http_ingest.flush");
        match self.params.target.clone() {
            IngestTarget::Direct(ingest_queue) => ingest_queue.push(self.pending.drain(..)),
            IngestTarget::Broker {
                publisher,
                breaker,
                fallback,
                shards,
                publish_buffer,
                frames_in_flight,
                bounds,
            } => {
                let in_line = self.lines.iter().any(|line| !line.pending.is_empty());
                if self.pending.is_empty() && publish_buffer.is_empty() && !in_line {
                    return;
                }
                let available = publisher.is_available();
                if !available {
                    breaker.failed();
                }
                if !available || !breaker.is_closed() {
                    let lines = self
                        .lines
                        .iter_mut()
                        .flat_map(|line| line.pending.drain(..));
                    let waiting = publish_buffer.take().into_iter().chain(lines);
                    let deliveries = waiting.chain(self.pending.drain(..)).collect();
                    let fallback = fallback.filter(|_| publisher.waits_for().is_none());
                    fall_back(fallback.as_ref(), deliveries, &self.params.metrics);
                    return;
                }
                if let Some(shards) = shards {
                    for (shard, frame) in self.frames_in_line(shards, bounds) {
                        self.publish_in_line(shard, frame, *publisher.clone(), &breaker, ctx);
                    }
                    return;
                }
                publish_buffer.add(self.pending.drain(..));
                while let Some((frame, place)) = publish_buffer.next(frames_in_flight, bounds) {
                    let (publisher, fallback) = (*publisher.clone(), fallback.clone());
                    self.publish(frame, place, publisher, &breaker, fallback, ctx);
                }
            }
        }
    }

    /// Puts what is pending into the lines of its shards, and takes a frame from each line that has
    /// none on its way.
    fn frames_in_line(
        &mut self,
        shards: Shards,
        bounds: FrameBounds,
    ) -> Vec<(usize, OutgoingFrame)> {
        self.lines
            .resize_with(usize::from(shards.count), Line::default);
        for delivery in self.pending.drain(..) {
            if let Some(line) = self.lines.get_mut(shards.of_event(&delivery.event)) {
                line.pending.push_back(delivery);
            }
        }
        let mut frames = Vec::new();
        for (shard, line) in self.lines.iter_mut().enumerate() {
            if line.frame_in_flight || line.pending.is_empty() {
                continue;
            }
            if let Some(frame) = OutgoingFrame::fill(&mut line.pending, bounds) {
                line.frame_in_flight = true;
                frames.push((shard, frame));
            }
        }
        frames
    }

    /// Publishes a frame to its shard. If it does not arrive, what stands behind it is refused too.
    fn publish_in_line(
        &mut self,
        shard: usize,
        frame: OutgoingFrame,
        publisher: Publisher,
        breaker: &Breaker,
        ctx: &mut Context<Self>,
    ) {
        let metrics = Arc::clone(&self.params.metrics);
        let breaker = breaker.clone();
        ctx.spawn(
            async move {
                failpoint::hit("http_ingest.publish");
                let destination = Destination::Shard(shard);
                let result = publisher.publish_frame(destination, &frame).await;
                failpoint::hit("http_ingest.after_confirm");
                let arrived = result.is_ok();
                finish(frame.deliveries, result, &breaker, None, &metrics);
                arrived
            }
            .into_actor(self)
            .map(move |arrived, ingest, ctx| {
                if let Some(line) = ingest.lines.get_mut(shard) {
                    line.frame_in_flight = false;
                    if !arrived {
                        let behind = line.pending.drain(..).collect();
                        settle(behind, Outcome::Refused);
                    }
                }
                ingest.flush(ctx);
            }),
        );
    }

    /// Publishes a frame; when the broker confirms it, its events are durable.
    fn publish(
        &mut self,
        frame: OutgoingFrame,
        place: InFlightPermit,
        publisher: Publisher,
        breaker: &Breaker,
        fallback: Option<IngestQueue>,
        ctx: &mut Context<Self>,
    ) {
        let metrics = Arc::clone(&self.params.metrics);
        let breaker = breaker.clone();
        ctx.spawn(
            async move {
                failpoint::hit("http_ingest.publish");
                let destination = Destination::WorkQueue;
                let result = publisher.publish_frame(destination, &frame).await;
                failpoint::hit("http_ingest.after_confirm");
                finish(
                    frame.deliveries,
                    result,
                    &breaker,
                    fallback.as_ref(),
                    &metrics,
                );
            }
            .into_actor(self)
            .map(|(), ingest, ctx| {
                // Before the flush, which may need it.
                drop(place);
                ingest.flush(ctx);
            }),
        );
    }
}

/// Answers for the events of a frame that was confirmed, or lets them fall back.
fn finish(
    deliveries: Vec<Delivery>,
    result: Result<(), PublishError>,
    breaker: &Breaker,
    fallback: Option<&IngestQueue>,
    metrics: &Metrics,
) {
    match result {
        Ok(()) => {
            breaker.succeeded();
            metrics.frames_published.inc();
            settle(deliveries, Outcome::Published);
        }
        Err(error) => {
            let kind = kind_of_publish(&error);
            tracing::error!(
                kind = kind.as_str(),
                %error,
                events = deliveries.len(),
                "events not published"
            );
            breaker.failed();
            fall_back(fallback, deliveries, metrics);
        }
    }
}

/// Into the store without the broker, if that is allowed. An event that the broker has all the same
/// is known under its id when it comes from there.
fn fall_back(fallback: Option<&IngestQueue>, deliveries: Vec<Delivery>, metrics: &Metrics) {
    match fallback {
        Some(ingest_queue) => {
            metrics.fallback.inc_by(deliveries.len() as u64);
            ingest_queue.push(deliveries);
        }
        None => settle(deliveries, Outcome::Refused),
    }
}

fn settle(deliveries: Vec<Delivery>, outcome: Outcome) {
    for delivery in deliveries {
        delivery
            .span
            .in_scope(|| tracing::debug!(outcome = outcome.as_str(), "answered"));
        delivery.ticket.settle(outcome);
    }
}

impl Actor for HttpIngest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let completions = self.params.completions.clone();
        ctx.spawn(async move { completions.hand_out().await }.into_actor(self));
        // After a crash: what the other workers' events wait for may have been a frame of this one.
        self.flush(ctx);
    }
}

impl Supervised for HttpIngest {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.params.clone());
    }
}

impl Handler<Tracked<Ingest>> for HttpIngest {
    type Result = ();

    fn handle(&mut self, message: Tracked<Ingest>, ctx: &mut Self::Context) {
        let (Ingest(deliveries), _handling) = message.open();
        failpoint::hit("http_ingest.ingest");
        self.pending.extend(deliveries);
        if !self.flushing {
            // Runs when the mailbox is empty, so that all requests of this turn go together.
            self.flushing = true;
            ctx.spawn(
                std::future::ready(())
                    .into_actor(self)
                    .map(|(), ingest, ctx| ingest.flush(ctx)),
            );
        }
    }
}

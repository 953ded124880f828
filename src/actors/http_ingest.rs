//! `HttpIngest`: one in every HTTP worker. Makes the requests' events durable: in direct mode
//! through the accumulator into the store, in full mode as frames on the work queue.
//!
//! Nothing is waited for to fill a frame: the first event goes at once, and what arrives while it
//! is being confirmed travels together in the next one.

use super::batch_accumulator::{BatchAccumulator, Push};
use crate::broker::publisher::{PublishError, Publisher};
use crate::event::outcome::Refusal;
use crate::event::{Delivery, Outcome, frame};
use crate::metrics::Metrics;
use crate::supervision::{ActorMessage, Mailbox, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames of one worker that may be on their way at once. One alone would leave the broker idle
/// between a confirm and the next frame; many would make frames small again.
const FRAMES_IN_FLIGHT: usize = 4;

/// Where events become durable.
#[derive(Clone)]
pub enum Door {
    /// In the store.
    Direct(Mailbox<BatchAccumulator>),
    /// On the work queue.
    Broker {
        /// The way there.
        publisher: Box<Publisher>,
        /// Most events in a frame.
        max_events: usize,
        /// Most bytes in a frame, unless a single event is larger.
        max_bytes: usize,
    },
}

/// What the actor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Where events become durable.
    pub door: Door,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct HttpIngest {
    wiring: Wiring,
    pending: VecDeque<Delivery>,
    frames_in_flight: usize,
    /// A flush is already due at the end of this turn.
    flushing: bool,
}

/// A request's events. Their answer comes to whoever opened the request
/// ([`crate::event::request::open`]), even if the actor crashes over the message.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ingest(pub Vec<Delivery>);

impl ActorMessage for Ingest {
    const NAME: &'static str = "ingest";
}

impl HttpIngest {
    /// An actor with nothing pending.
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            pending: VecDeque::new(),
            frames_in_flight: 0,
            flushing: false,
        }
    }

    /// Sends what has gathered in this turn of the event loop.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flushing = false;
        failpoint::hit("http_ingest.flush");
        match self.wiring.door.clone() {
            Door::Direct(accumulator) => {
                let deliveries: Vec<Delivery> = self.pending.drain(..).collect();
                if deliveries.is_empty() {
                    return;
                }
                if let Err(rejected) = accumulator.try_send(Push(deliveries)) {
                    let Push(deliveries) = rejected.into_message();
                    for delivery in deliveries {
                        delivery
                            .ticket
                            .settle(Outcome::Refused(Refusal::Overloaded));
                    }
                }
            }
            Door::Broker {
                publisher,
                max_events,
                max_bytes,
            } => {
                while self.frames_in_flight < FRAMES_IN_FLIGHT && !self.pending.is_empty() {
                    self.publish(&publisher, max_events, max_bytes, ctx);
                }
            }
        }
    }

    /// Publishes one frame from the front of what is pending.
    fn publish(
        &mut self,
        publisher: &Publisher,
        max_events: usize,
        max_bytes: usize,
        ctx: &mut Context<Self>,
    ) {
        let mut encoder = frame::Encoder::default();
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.pending.front() {
            bytes += next.event.weight();
            if !encoder.is_empty() && (encoder.len() >= max_events || bytes > max_bytes) {
                break;
            }
            let Some(delivery) = self.pending.pop_front() else {
                break;
            };
            match encoder.push(&delivery.event) {
                Ok(()) => deliveries.push(delivery),
                Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
            }
        }
        if deliveries.is_empty() {
            return;
        }
        let body = encoder.finish();
        let publisher = publisher.clone();
        let metrics = Arc::clone(&self.wiring.metrics);
        self.frames_in_flight += 1;
        ctx.spawn(
            async move {
                failpoint::hit("http_ingest.publish");
                let result = publisher.publish_frame(&body).await;
                failpoint::hit("http_ingest.after_confirm");
                let outcome = match result {
                    Ok(()) => {
                        metrics.frames_published.inc();
                        Outcome::Published
                    }
                    Err(error) => {
                        log_unpublished(&error, deliveries.len());
                        Outcome::Refused(Refusal::Unavailable)
                    }
                };
                for delivery in deliveries {
                    delivery
                        .span
                        .in_scope(|| tracing::debug!(outcome = outcome.as_str(), "published"));
                    delivery.ticket.settle(outcome);
                }
            }
            .into_actor(self)
            .map(|(), ingest, ctx| {
                ingest.frames_in_flight -= 1;
                ingest.flush(ctx);
            }),
        );
    }
}

fn log_unpublished(error: &PublishError, events: usize) {
    tracing::error!(%error, events, "events not published; their callers are told to come back");
}

impl Actor for HttpIngest {
    type Context = Context<Self>;
}

impl Supervised for HttpIngest {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.wiring.clone());
    }
}

impl Handler<Tracked<Ingest>> for HttpIngest {
    type Result = ();

    fn handle(&mut self, message: Tracked<Ingest>, ctx: &mut Self::Context) {
        let Some((Ingest(deliveries), _handling)) = message.open() else {
            return;
        };
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

//! `HttpIngest`: one in every HTTP worker. Makes the requests' events durable: in direct mode
//! through the accumulator into the store, in full mode as frames on the work queue.
//!
//! Nothing is waited for to fill a frame: the first event goes at once, and what arrives while it
//! is being confirmed travels together in the next one.

use super::batch_accumulator::{BatchAccumulator, Push};
use crate::broker::error::kind_of_publish;
use crate::broker::publisher::Publisher;
use crate::event::outcome::Refusal;
use crate::event::{Delivery, Outcome, frame};
use crate::metrics::Metrics;
use crate::supervision::{ActorMessage, Breaker, Mailbox, Tracked, failpoint};
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
        /// Whether the broker is there.
        breaker: Breaker,
        /// Where events go while it is not; nowhere if they are to be refused.
        fallback: Option<Mailbox<BatchAccumulator>>,
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
                write_directly(&accumulator, self.pending.drain(..).collect());
            }
            Door::Broker {
                publisher,
                breaker,
                fallback,
                max_events,
                max_bytes,
            } => {
                let available = publisher.is_available();
                if !available {
                    breaker.failed();
                }
                if !available || !breaker.is_closed() {
                    let deliveries = self.pending.drain(..).collect();
                    fall_back(fallback.as_ref(), deliveries, &self.wiring.metrics);
                    return;
                }
                while self.frames_in_flight < FRAMES_IN_FLIGHT && !self.pending.is_empty() {
                    let Some(frame) = self.next_frame(max_events, max_bytes) else {
                        continue;
                    };
                    self.publish(frame, *publisher.clone(), &breaker, fallback.clone(), ctx);
                }
            }
        }
    }

    /// A frame from the front of what is pending; `None` when nothing of it could be written.
    fn next_frame(&mut self, max_events: usize, max_bytes: usize) -> Option<Frame> {
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
        (!deliveries.is_empty()).then(|| Frame {
            body: encoder.finish(),
            deliveries,
        })
    }

    /// Publishes a frame; when the broker confirms it, its events are durable.
    fn publish(
        &mut self,
        frame: Frame,
        publisher: Publisher,
        breaker: &Breaker,
        fallback: Option<Mailbox<BatchAccumulator>>,
        ctx: &mut Context<Self>,
    ) {
        let metrics = Arc::clone(&self.wiring.metrics);
        let breaker = breaker.clone();
        self.frames_in_flight += 1;
        ctx.spawn(
            async move {
                let Frame { body, deliveries } = frame;
                failpoint::hit("http_ingest.publish");
                let result = publisher.publish_frame(&body).await;
                failpoint::hit("http_ingest.after_confirm");
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
                        fall_back(fallback.as_ref(), deliveries, &metrics);
                    }
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

/// A message for the work queue, and whom to answer for the events in it.
struct Frame {
    body: Vec<u8>,
    deliveries: Vec<Delivery>,
}

/// Into the store without the broker, if that is allowed. An event that the broker has all the same
/// is known under its id when it comes from there.
fn fall_back(
    fallback: Option<&Mailbox<BatchAccumulator>>,
    deliveries: Vec<Delivery>,
    metrics: &Metrics,
) {
    match fallback {
        Some(accumulator) => {
            metrics.fallback.inc_by(deliveries.len() as u64);
            write_directly(accumulator, deliveries);
        }
        None => settle(deliveries, Outcome::Refused(Refusal::Unavailable)),
    }
}

fn write_directly(accumulator: &Mailbox<BatchAccumulator>, deliveries: Vec<Delivery>) {
    if deliveries.is_empty() {
        return;
    }
    if let Err(rejected) = accumulator.try_send(Push(deliveries)) {
        let Push(deliveries) = rejected.into_message();
        settle(deliveries, Outcome::Refused(Refusal::Overloaded));
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

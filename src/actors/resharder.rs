//! `Resharder`: with an order by user, whatever comes onto the work queue (from foreign publishers,
//! above all) is sorted from there onto the shards. One replica at a time does it, or the order of a
//! user's messages would not outlast it. A message is acknowledged when all its events lie on their
//! shards.

use super::intake::Intake;
use super::ordered_session::{Leaving, OrderedSession, SessionError, vacant};
use super::sessions::{self, Next};
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::publisher::Publisher;
use crate::broker::sorting::{self, Bounds, Frame, Outgoing};
use crate::event::{Outcome, Ticket};
use crate::supervision::{Lifecycle, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::future::join_all;
use lapin::message::Delivery as Message;
use std::sync::Arc;
use std::time::Duration;

/// From one look at the link to the next while the broker takes no messages.
const BLOCKED: Duration = Duration::from_secs(1);

/// What the actor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// The connection in force.
    pub link: LinkWatch,
    /// The way onto the shards.
    pub publisher: Publisher,
    /// How large a frame may be.
    pub bounds: Bounds,
    /// How messages are read.
    pub intake: Intake,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

/// The actor.
pub struct Resharder {
    wiring: Wiring,
}

impl Resharder {
    /// It begins when there is a link and no other replica does it.
    pub fn new(wiring: Wiring) -> Self {
        Self { wiring }
    }
}

impl Actor for Resharder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let wiring = self.wiring.clone();
        ctx.spawn(async move { wiring.run().await }.into_actor(self));
    }
}

// A restart drops the running session, and the broker puts what was in hand back in its order.
impl Supervised for Resharder {}

impl Wiring {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.intake.settings.get());
        let session = async |link: &Link| self.session(link).await;
        let failed = async |_: &Link, error: SessionError| {
            tracing::warn!(%error, "sorting onto the shards was interrupted");
        };
        sessions::run(self.link.clone(), &settings.broker, session, failed).await;
    }

    async fn session(&self, link: &Link) -> Result<Next, SessionError> {
        let queue = self.intake.settings.get().broker.queue.clone();
        if link.is_blocked() {
            // What is published now may be taken when the alarm is over, and what returns meanwhile is
            // published again: each time under new ids, where messages have none.
            tokio::select! {
                () = link.unblocked() => {}
                () = tokio::time::sleep(BLOCKED) => {}
                () = self.lifecycle.reached(Phase::Draining) => return Ok(Next::End),
            }
            return Ok(Next::Session);
        }
        if !vacant(link, &queue, &self.lifecycle, |_| true).await? {
            return Ok(Next::End);
        }
        let _drains_first = self.lifecycle.hold();
        let begun = OrderedSession::begin(link, &queue, &self.intake.metrics).await?;
        let Some(session) = begun else {
            return Ok(Next::Session);
        };
        tracing::info!(queue, "sorting onto the shards");
        let leave = async {
            self.lifecycle.reached(Phase::Draining).await;
            Ok(Leaving::Draining)
        };
        let result = session
            .run(
                async |messages| self.sort(messages, &session).await,
                leave,
                async || {},
            )
            .await;
        session.end().await;
        result.map(Leaving::next)
    }

    /// Puts the events of messages onto their shards; returns when all are there.
    async fn sort(
        &self,
        messages: Vec<Message>,
        session: &OrderedSession,
    ) -> Result<(), SessionError> {
        let mut deliveries = Vec::new();
        for message in messages {
            self.intake
                .read(message, &session.ledger, &mut deliveries)
                .await;
        }
        failpoint::hit("resharder.publish");
        let Some(shards) = self.publisher.shards() else {
            return Err(SessionError::Returned);
        };
        let outgoing = deliveries.into_iter().map(|delivery| Outgoing {
            event: delivery.event,
            letter: delivery.letter,
            attempts: delivery.attempts,
            with: delivery.ticket,
        });
        let sorted = sorting::frames(outgoing, shards, self.bounds);
        let putting = sorted.into_iter().enumerate().map(|(shard, frames)| {
            // One after the other: behind one that does not arrive none may.
            async move {
                for frame in frames {
                    if !self.put(shard, frame).await {
                        return false;
                    }
                }
                true
            }
        });
        let arrived = join_all(putting).await;
        failpoint::hit("resharder.after_confirm");
        if arrived.into_iter().all(|arrived| arrived) {
            Ok(())
        } else {
            Err(SessionError::Returned)
        }
    }

    /// Whether a frame has arrived. If not, its tickets are dropped and its messages return.
    async fn put(&self, shard: usize, frame: Frame<Ticket>) -> bool {
        let Frame {
            body,
            letter,
            attempts,
            with,
        } = frame;
        let publishing = self
            .publisher
            .publish_to_shard(shard, &body, letter, attempts);
        match publishing.await {
            Ok(()) => {
                self.intake.metrics.frames_published.inc();
                for ticket in with {
                    ticket.settle(Outcome::Published);
                }
                true
            }
            Err(error) => {
                tracing::error!(shard, %error, events = with.len(), "not sorted onto their shard");
                false
            }
        }
    }
}

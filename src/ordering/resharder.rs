//! `Resharder`: with an order by user, takes the messages of the work queue, most of them of foreign
//! publishers, and publishes their events to the shards. One replica at a time does it, so that a
//! user's messages keep their order. A message is acknowledged when all its events are confirmed.

use super::ordered_session::{OrderedSession, OrderedSessionError, SessionEnd, vacant};
use crate::broker::sessions;
use crate::broker::sessions::Next;
use crate::broker::{Destination, Link, LinkWatch, OutgoingFrame, Publisher};
use crate::consume::message_decoder::MessageDecoder;
use crate::event::{Delivery, Outcome};
use crate::supervision::{Lifecycle, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::future::try_join_all;
use lapin::message::Delivery as Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// From one look at the link to the next while the broker takes no messages.
const BLOCKED: Duration = Duration::from_secs(1);

/// What the actor is wired to.
#[derive(Clone)]
pub struct ResharderParams {
    /// The connection in force.
    pub link: LinkWatch,
    /// Publishes to the shards.
    pub publisher: Publisher,
    /// How messages are read.
    pub decoder: MessageDecoder,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

pub struct Resharder {
    params: ResharderParams,
}

impl Resharder {
    /// It begins when there is a link and no other replica does it.
    pub fn new(params: ResharderParams) -> Self {
        Self { params }
    }
}

impl Actor for Resharder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(async move { params.run().await }.into_actor(self));
    }
}

// A restart drops the running session, and the broker puts what was in hand back in its order.
impl Supervised for Resharder {}

impl ResharderParams {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.decoder.settings.get());
        let session = async |link: &Link| self.session(link).await;
        let failed = async |_: &Link, error: OrderedSessionError| {
            tracing::warn!(%error, "distributing to the shards was interrupted");
        };
        sessions::run(self.link.clone(), &settings.broker, session, failed).await;
    }

    async fn session(&self, link: &Link) -> Result<Next, OrderedSessionError> {
        let queue = self.decoder.settings.get().broker.queue.clone();
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
        if link.is_draining() {
            return Ok(sessions::replaced(&self.link, link, &self.lifecycle).await);
        }
        if !vacant(link, &queue, &self.lifecycle, |_| true).await? {
            return Ok(Next::End);
        }
        let _drains_first = self.lifecycle.hold();
        let begun = OrderedSession::begin(link, &queue, None, &self.decoder.metrics).await?;
        let Some(session) = begun else {
            return Ok(Next::Session);
        };
        tracing::info!(queue, "distributing to the shards");
        let leave = async {
            self.lifecycle.reached(Phase::Draining).await;
            Ok(SessionEnd::Draining)
        };
        let result = session
            .run(
                async |messages| self.publish(messages, &session).await,
                leave,
                async || {},
            )
            .await;
        session.end().await;
        result.map(SessionEnd::next)
    }

    /// Publishes the events of messages to their shards; returns when all are confirmed.
    async fn publish(
        &self,
        messages: Vec<Message>,
        session: &OrderedSession,
    ) -> Result<(), OrderedSessionError> {
        let mut deliveries = Vec::new();
        for message in messages {
            self.decoder
                .read(message, &session.tracker, &mut deliveries)
                .await;
        }
        failpoint::hit("resharder.publish");
        let routed = self.publisher.route(deliveries).into_iter();
        let confirmed = try_join_all(
            routed.map(|(destination, events)| self.publish_in_order(destination, events)),
        );
        let confirmed = confirmed.await;
        failpoint::hit("resharder.after_confirm");
        confirmed.map(|_| ())
    }

    /// Publishes to one shard, one frame after the other: behind one that is not confirmed none may
    /// follow. Tickets that are dropped return their messages.
    async fn publish_in_order(
        &self,
        destination: Destination,
        mut events: VecDeque<Delivery>,
    ) -> Result<(), OrderedSessionError> {
        while let Some(frame) = OutgoingFrame::fill(&mut events, self.publisher.bounds()) {
            if let Err(error) = self.publisher.publish_frame(destination, &frame).await {
                let events = frame.deliveries.len();
                tracing::error!(?destination, %error, events, "events not published to their shard");
                return Err(OrderedSessionError::Returned);
            }
            self.decoder.metrics.frames_published.inc();
            for delivery in frame.deliveries {
                delivery.ticket.settle(Outcome::Published);
            }
        }
        Ok(())
    }
}

//! `ShardConsumer`: one for each shard, in every replica. Whichever of them has the shard's queue
//! hands its events to the shard's lane in their order; the others wait for it.

use super::batch_accumulator::{BatchAccumulator, Discard, Flush, Group, PushInLine};
use super::intake::Intake;
use super::ordered_session::{Leaving, OrderedSession, SessionError, vacant};
use super::sessions::{self, Next};
use super::share::Share;
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::error::kind_of;
use crate::store::ErrorKind;
use crate::supervision::{Breaker, Lifecycle, Mailbox, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use lapin::message::Delivery as Message;
use std::sync::Arc;

/// What a consumer is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Which shard.
    pub shard: usize,
    /// The connection in force.
    pub link: LinkWatch,
    /// How messages are read.
    pub intake: Intake,
    /// The shard's lane into the store.
    pub lane: Mailbox<BatchAccumulator>,
    /// How many shards this replica takes.
    pub share: Share,
    /// Whether the store is there.
    pub store_breaker: Breaker,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

/// The actor.
pub struct ShardConsumer {
    wiring: Wiring,
}

impl ShardConsumer {
    /// A consumer that begins when there is a link and nobody else has the shard.
    pub fn new(wiring: Wiring) -> Self {
        Self { wiring }
    }
}

impl Actor for ShardConsumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let wiring = self.wiring.clone();
        ctx.spawn(async move { wiring.run().await }.into_actor(self));
    }
}

// A restart drops the running session, and with it the channel: the broker puts what was in hand
// back in its order.
impl Supervised for ShardConsumer {}

impl Wiring {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.intake.settings.get());
        let session = async |link: &Link| self.session(link).await;
        let failed = async |link: &Link, error: SessionError| {
            tracing::warn!(shard = self.shard, %error, "a shard was interrupted");
            if matches!(&error, SessionError::Broker(error) if kind_of(error) == ErrorKind::Operator)
            {
                link.suspect();
            }
            if matches!(error, SessionError::StoreAway) {
                self.store_breaker.closed().await;
            }
        };
        sessions::run(self.link.clone(), &settings.broker, session, failed).await;
    }

    /// Waits for the shard, and has it until something ends that.
    async fn session(&self, link: &Link) -> Result<Next, SessionError> {
        let (queue, release_after) = {
            let settings = self.intake.settings.get();
            let Some(shards) = link.shards() else {
                return Err(SessionError::StreamEnded);
            };
            let queue = shards.queue(&settings.broker.queue, self.shard);
            (queue, settings.broker.release_after)
        };
        let may_take = |orphaned| self.share.may_take(link, orphaned);
        if !vacant(link, &queue, &self.lifecycle, may_take).await? {
            return Ok(Next::End);
        }
        let _drains_first = self.lifecycle.hold();
        let begun = OrderedSession::begin(link, &queue, &self.intake.metrics).await?;
        let Some(session) = begun else {
            return Ok(Next::Session);
        };
        let _held = self.share.hold(link);
        tracing::info!(shard = self.shard, queue, "shard taken");
        let leave = async {
            tokio::select! {
                () = self.lifecycle.reached(Phase::Draining) => Ok(Leaving::Draining),
                () = self.share.is_too_much(link) => Ok(Leaving::GivenUp),
                () = self.store_breaker.away_for(release_after) => Err(SessionError::StoreAway),
            }
        };
        let result = session
            .run(
                async |messages| self.take(messages, &session).await,
                leave,
                async || {
                    if self.lane.send(Flush).await.is_err() {
                        tracing::warn!("the accumulator crashed; what it held returns");
                    }
                },
            )
            .await;
        // Before the lane is emptied, so that nothing of this session is written after it.
        session.ledger.close();
        if self.lane.send(Discard).await.is_err() {
            tracing::warn!("the accumulator crashed; what it held has returned");
        }
        session.end().await;
        tracing::info!(shard = self.shard, queue, "shard left");
        result.map(Leaving::next)
    }

    /// Hands messages to the lane. One that is delivered again was in hand when something ended
    /// uncleanly and may have been the cause: it goes alone, and still in its turn.
    async fn take(
        &self,
        messages: Vec<Message>,
        session: &OrderedSession,
    ) -> Result<(), SessionError> {
        let mut groups: Vec<Group> = Vec::new();
        for message in messages {
            let alone = message.redelivered;
            let mut deliveries = Vec::new();
            self.intake
                .read(message, &session.ledger, &mut deliveries)
                .await;
            if deliveries.is_empty() {
                continue;
            }
            match groups.last_mut().filter(|last| !alone && !last.alone) {
                Some(last) => last.deliveries.append(&mut deliveries),
                None => groups.push(Group { alone, deliveries }),
            }
        }
        failpoint::hit("shard_consumer.push");
        if groups.is_empty() {
            return Ok(());
        }
        // Waits for room in the mailbox: that is the back-pressure towards the broker.
        let pushed = self.lane.send(PushInLine(groups)).await;
        pushed.map_err(|_| SessionError::Accumulator)
    }
}

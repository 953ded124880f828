//! `ShardConsumer`: one for each shard in every replica. The one that consumes the shard's queue hands
//! its events to the shard's lane in their order; the others wait for it. The shards of a former layout
//! are worked off by the same actors: consumer `i` of `n` takes every n-th of them.

use super::consumer_lock::look;
use super::ordered_session::{OrderedSession, OrderedSessionError, SessionEnd, vacant};
use super::shard_balancer::ShardBalancer;
use crate::batch::BatchAccumulator;
use crate::batch::messages::{AccumulatorMessage, Group, Push, PushMode};
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::error::kind_of;
use crate::broker::sessions;
use crate::broker::sessions::Next;
use crate::consume::ack_tracker::AckTracker;
use crate::consume::message_decoder::MessageDecoder;
use crate::event::{Lane, Shards};
use crate::retry::breaker::Breaker;
use crate::store::ErrorKind;
use crate::supervision::{Lifecycle, Mailbox, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use lapin::message::Delivery as Message;
use std::sync::Arc;
use std::time::Duration;

/// Interval at which a former shard is checked.
const EMPTY: Duration = Duration::from_millis(200);

/// What a consumer is wired to.
#[derive(Clone)]
pub struct ShardConsumerParams {
    /// Index of the shard.
    pub shard: usize,
    /// Number of these consumers in the process.
    pub consumers: usize,
    /// The connection in force.
    pub link: LinkWatch,
    /// How messages are read.
    pub decoder: MessageDecoder,
    /// The shard's lane into the store.
    pub lane: Mailbox<BatchAccumulator>,
    /// How many shards this replica takes.
    pub share: ShardBalancer,
    /// Whether the store is there.
    pub store_breaker: Breaker,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

pub struct ShardConsumer {
    params: ShardConsumerParams,
}

impl ShardConsumer {
    /// A consumer that begins when there is a link and no other consumer has the shard.
    pub fn new(params: ShardConsumerParams) -> Self {
        Self { params }
    }
}

impl Actor for ShardConsumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(async move { params.run().await }.into_actor(self));
    }
}

// A restart drops the running session, and with it the channel: the broker puts what was in hand
// back in its order.
impl Supervised for ShardConsumer {}

impl ShardConsumerParams {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.decoder.settings.get());
        let session = async |link: &Link| self.session(link).await;
        let failed = async |link: &Link, error: OrderedSessionError| {
            tracing::warn!(shard = self.shard, %error, "a shard was interrupted");
            if matches!(&error, OrderedSessionError::Broker(error) if kind_of(error) == ErrorKind::Operator)
            {
                link.suspect();
            }
            if matches!(error, OrderedSessionError::StoreAway) {
                self.store_breaker.closed().await;
            }
        };
        sessions::run(self.link.clone(), &settings.broker, session, failed).await;
    }

    /// Consumes the shard in force, or works off the shards of a former layout.
    async fn session(&self, link: &Link) -> Result<Next, OrderedSessionError> {
        match link.assignment() {
            Some(assignment) if assignment.draining => {
                self.former_shards(link, assignment.shards).await
            }
            Some(assignment) => self.shard_in_force(link, assignment.shards).await,
            None => Ok(sessions::replaced(&self.link, link, &self.lifecycle).await),
        }
    }

    /// Waits for the shard, and consumes it until something ends that.
    async fn shard_in_force(
        &self,
        link: &Link,
        shards: Shards,
    ) -> Result<Next, OrderedSessionError> {
        let queue = self.queue(shards, self.shard);
        let may_take = |orphaned| self.share.may_take(link, orphaned);
        if !vacant(link, &queue, &self.lifecycle, may_take).await? {
            return Ok(Next::End);
        }
        let leave = async |_: &AckTracker| {
            self.share.is_too_much(link).await;
            Ok(())
        };
        let held = || self.share.hold(link);
        let leaving = self.consume(link, shards, self.shard, held, leave).await?;
        Ok(leaving.map_or(Next::Session, SessionEnd::next))
    }

    /// Consumes those of the former shards that fall to this consumer, one after the other, until
    /// another link says that all are empty.
    async fn former_shards(
        &self,
        link: &Link,
        shards: Shards,
    ) -> Result<Next, OrderedSessionError> {
        loop {
            for shard in shards.all().skip(self.shard).step_by(self.consumers) {
                let queue = self.queue(shards, shard);
                let found = look(&link.consuming, &queue).await?;
                if !found.is_some_and(|found| found.is_vacant() && found.messages > 0) {
                    continue;
                }
                let leave = async |tracker: &AckTracker| loop {
                    tokio::time::sleep(EMPTY).await;
                    let found = look(&link.consuming, &queue).await?;
                    if tracker.open_messages() == 0 && found.is_none_or(|f| f.messages == 0) {
                        return Ok(());
                    }
                };
                let leaving = self.consume(link, shards, shard, || (), leave).await?;
                if leaving == Some(SessionEnd::Draining) {
                    return Ok(Next::End);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EMPTY) => {}
                next = sessions::replaced(&self.link, link, &self.lifecycle) => return Ok(next),
            }
        }
    }

    fn queue(&self, shards: Shards, shard: usize) -> String {
        shards.queue(&self.decoder.settings.get().broker.queue, shard)
    }

    /// Consumes the queue of a shard until `leave` or the process ends it; `None` if another consumer
    /// was faster.
    async fn consume<H>(
        &self,
        link: &Link,
        shards: Shards,
        shard: usize,
        hold: impl Fn() -> H,
        leave: impl AsyncFn(&AckTracker) -> lapin::Result<()>,
    ) -> Result<Option<SessionEnd>, OrderedSessionError> {
        let (queue, lane, release_after) = {
            let broker = &self.decoder.settings.get().broker;
            let lane = shards.lane_key(&broker.queue, shard);
            (
                self.queue(shards, shard),
                broker.is_ordered().then_some(Lane::unfenced(lane)),
                broker.release_after,
            )
        };
        let _drains_first = self.lifecycle.hold();
        let begun = OrderedSession::begin(link, &queue, lane, &self.decoder.metrics).await?;
        let Some(session) = begun else {
            return Ok(None);
        };
        let _held = hold();
        tracing::info!(shard, queue, "shard taken");
        let leave = async {
            tokio::select! {
                () = self.lifecycle.reached(Phase::Draining) => Ok(SessionEnd::Draining),
                left = leave(&session.tracker) => Ok(left.map(|()| SessionEnd::GivenUp)?),
                () = self.store_breaker.away_for(release_after) => Err(OrderedSessionError::StoreAway),
            }
        };
        let result = session
            .run(
                async |messages| self.take(messages, &session).await,
                leave,
                async || {
                    if self.lane.send(AccumulatorMessage::Flush).await.is_err() {
                        tracing::warn!("the accumulator crashed; what it held returns");
                    }
                },
            )
            .await;
        // Before the lane is emptied, so that nothing of this session is written after it.
        session.tracker.close();
        if session.tracker.open_messages() > 0
            && self.lane.send(AccumulatorMessage::Discard).await.is_err()
        {
            tracing::warn!("the accumulator crashed; what it held has returned");
        }
        session.end().await;
        tracing::info!(shard, queue, "shard left");
        result.map(Some)
    }

    /// Hands messages to the lane. One that is delivered again was in hand when something ended
    /// uncleanly and may have been the cause: it goes alone, and still in its turn.
    async fn take(
        &self,
        messages: Vec<Message>,
        session: &OrderedSession,
    ) -> Result<(), OrderedSessionError> {
        let mut groups: Vec<Group> = Vec::new();
        for message in messages {
            let alone = message.redelivered;
            let mut deliveries = Vec::new();
            self.decoder
                .read(message, &session.tracker, &mut deliveries)
                .await;
            if deliveries.is_empty() {
                continue;
            }
            let mode = if alone {
                PushMode::AloneInTurn
            } else {
                PushMode::Shared
            };
            match groups.last_mut().filter(|last| !alone && last.mode == mode) {
                Some(last) => last.deliveries.append(&mut deliveries),
                None => groups.push(Group { mode, deliveries }),
            }
        }
        failpoint::hit("shard_consumer.push");
        if groups.is_empty() {
            return Ok(());
        }
        // Awaiting the answer before taking more bounds what waits in the accumulator's mailbox.
        let push = Push {
            groups,
            window_spent: session.tracker.is_window_spent(),
        };
        let pushed = self.lane.send(AccumulatorMessage::Push(push)).await;
        pushed.map_err(|_| OrderedSessionError::Accumulator)
    }
}

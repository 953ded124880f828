//! `OrderedSession`: one exclusive consumer of a queue whose messages keep their order. No single
//! message is returned: when anything fails, the channel is closed, and RabbitMQ puts all messages in
//! hand back to the front in their order (see [`OrderedConsumer`]).

use super::consumer_lock::{ConsumerLock, QueueStatus, look_over};
use super::ordered_consumer::OrderedConsumer;
use crate::broker::Link;
use crate::broker::sessions::Next;
use crate::consume::ack_tracker::{AckTracker, CloseOnDrop};
use crate::consume::message_decoder::acknowledge;
use crate::event::Lane;
use crate::metrics::Metrics;
use crate::supervision::{Lifecycle, Phase};
use futures::StreamExt;
use lapin::message::Delivery as Message;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Mean interval at which a replica asks whether a queue has a consumer. It varies by a third, so that
/// replicas do not ask at the same moments.
const LOOK: Duration = Duration::from_millis(400);
/// How long what is in hand may take to settle when a shard is given up in order.
const SETTLE: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum OrderedSessionError {
    /// The consumer was cancelled or the connection closed.
    #[error("the consumer's stream ended")]
    StreamEnded,
    /// The broker does not do what it is asked.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// A message comes back, and all behind it must.
    #[error("a message could not be settled; all in hand return in their order")]
    Returned,
    /// The accumulator crashed over a message.
    #[error("the accumulator crashed over a message")]
    Accumulator,
    /// The messages in hand are returned until the store is available.
    #[error("the store has been away for long")]
    StoreAway,
}

/// How a session that was not interrupted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The process is stopping.
    Draining,
    /// Another replica is to have it.
    GivenUp,
}

impl SessionEnd {
    /// What comes after it.
    pub fn next(self) -> Next {
        match self {
            Self::Draining => Next::End,
            Self::GivenUp => Next::Session,
        }
    }
}

/// A queue that this replica alone consumes.
pub struct OrderedSession {
    // Dropped in this order: nothing is written any more, then what is in hand goes back.
    _closed_at_the_end: CloseOnDrop,
    consumer: OrderedConsumer,
    /// The lock belongs to the connection: after a panic only this replica can acquire it.
    lock: ConsumerLock,
    /// What is in hand.
    pub tracker: Arc<AckTracker>,
}

impl OrderedSession {
    /// Begins to consume; `None` while another consumer does. The rows are written under the lock of
    /// `lane`.
    pub async fn begin(
        link: &Link,
        queue: &str,
        lane: Option<Lane>,
        metrics: &Metrics,
    ) -> lapin::Result<Option<Self>> {
        let Some(lock) = ConsumerLock::of_queue(&link.consuming, queue).await? else {
            return Ok(None);
        };
        // The same in all replicas, see `Shards::prefetch`.
        let prefetch = link.assignment().map_or(1, |of| of.shards.prefetch);
        let tag = format!("eclusa-{}", std::process::id());
        let begun = OrderedConsumer::begin(&link.consuming, queue, &tag, prefetch);
        let consumer = match begun.await {
            Ok(consumer) => consumer,
            Err(error) => {
                lock.release().await;
                return Err(error);
            }
        };
        let sole = lock.is_sole(&link.consuming, queue).await;
        let tracker = Arc::new(AckTracker::ordered(
            metrics.accounting.consume.clone(),
            prefetch,
            lane,
        ));
        let session = Self {
            _closed_at_the_end: CloseOnDrop(tracker.clone()),
            consumer,
            lock,
            tracker,
        };
        if let Ok(true) = sole {
            return Ok(Some(session));
        }
        // Messages that have come meanwhile return untouched, in their order.
        session.end().await;
        sole.map(|_| None)
    }

    /// Gives messages to `take`, in order and some at a time, until `leave` says that it is enough
    /// or something goes wrong. With `Ok` everything that was taken has been settled, or had the
    /// time for it.
    pub async fn run(
        &self,
        mut take: impl AsyncFnMut(Vec<Message>) -> Result<(), OrderedSessionError>,
        leave: impl Future<Output = Result<SessionEnd, OrderedSessionError>>,
        mut settle: impl AsyncFnMut(),
    ) -> Result<SessionEnd, OrderedSessionError> {
        const AT_ONCE: usize = 512;
        let mut chunks = self.consumer.chunks(AT_ONCE);
        let mut acknowledging = std::pin::pin!(acknowledge(self.consumer.channel(), &self.tracker));
        let mut leave = std::pin::pin!(leave);
        let taking = async {
            loop {
                // Left between two chunks only: what is taken is taken.
                let chunk = tokio::select! {
                    leaving = &mut leave => return leaving,
                    chunk = chunks.next() => chunk.ok_or(OrderedSessionError::StreamEnded)?,
                };
                take(chunk.into_iter().collect::<Result<Vec<_>, _>>()?).await?;
            }
        };
        let leaving = tokio::select! {
            leaving = taking => leaving?,
            result = &mut acknowledging => {
                result?;
                return Err(OrderedSessionError::Returned);
            }
        };
        settle().await;
        let since = Instant::now();
        while self.tracker.open_messages() > 0 {
            // A stopping process has a deadline of its own.
            if leaving == SessionEnd::GivenUp && since.elapsed() > SETTLE {
                break;
            }
            tokio::select! {
                result = &mut acknowledging => {
                    result?;
                    return Err(OrderedSessionError::Returned);
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        Ok(leaving)
    }

    /// Closes the channel, and only then lets others have the queue.
    pub async fn end(self) {
        self.tracker.close();
        self.consumer.end().await;
        self.lock.release().await;
    }
}

/// Waits until a queue has no consumer and `may_take` it, which is given the time since it had one;
/// `false` when the process is stopping.
pub async fn vacant(
    link: &Link,
    queue: &str,
    lifecycle: &Lifecycle,
    may_take: impl Fn(Duration) -> bool,
) -> lapin::Result<bool> {
    let mut vacant_since = None;
    let mut channel = None;
    loop {
        let pause = LOOK.mul_f64(rand::rng().random_range(0.67..=1.33));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = lifecycle.reached(Phase::Draining) => return Ok(false),
        }
        // Reused: there may be many shards to wait for.
        let over = match channel.take() {
            Some(channel) => channel,
            None => link.consuming.create_channel().await?,
        };
        let found = look_over(&over, queue).await?;
        channel = found.is_some().then_some(over);
        if !found.is_some_and(QueueStatus::is_vacant) {
            // A reply that is not the leader's says nothing, neither that there is a consumer.
            if found.is_none_or(|found| found.certain) {
                vacant_since = None;
            }
            continue;
        }
        let since = *vacant_since.get_or_insert_with(Instant::now);
        if may_take(since.elapsed()) {
            return Ok(true);
        }
    }
}

//! Consuming a queue whose messages keep their order: nobody else has the queue, nothing is given
//! back by itself, and when anything goes wrong the channel is closed, upon which RabbitMQ puts all
//! that was in hand back to the front in its order (see `broker::ordered_consumer`).

use super::intake::acknowledge;
use super::sessions::Next;
use crate::broker::Link;
use crate::broker::channel_ledger::ChannelLedger;
use crate::broker::claim::{Claim, Look, look_over};
use crate::broker::ordered_consumer::OrderedConsumer;
use crate::metrics::Metrics;
use crate::supervision::{Lifecycle, Phase};
use futures::StreamExt;
use lapin::message::Delivery as Message;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a replica looks whether a queue has an owner. Two thirds to four thirds of it, so that
/// replicas do not look at the same moments.
const LOOK: Duration = Duration::from_millis(400);
/// How long what is in hand may take to settle when a shard is given up in order.
const SETTLE: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Also when the connection ends.
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
    /// Its messages return until it is there.
    #[error("the store has been away for long")]
    StoreAway,
}

/// How a session that was not interrupted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// The process is stopping.
    Draining,
    /// Another replica is to have it.
    GivenUp,
}

impl Leaving {
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
    _closed_at_the_end: ClosedAtTheEnd,
    consumer: OrderedConsumer,
    /// It belongs to the connection: after a panic this replica alone can have the queue.
    claim: Claim,
    /// What is in hand.
    pub ledger: Arc<ChannelLedger>,
}

/// Closes a ledger when its session is dropped: a panic ends it in no other way, and what came in it
/// is delivered again.
struct ClosedAtTheEnd(Arc<ChannelLedger>);

impl Drop for ClosedAtTheEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl OrderedSession {
    /// Begins to consume; `None` while somebody else does.
    pub async fn begin(link: &Link, queue: &str, metrics: &Metrics) -> lapin::Result<Option<Self>> {
        let Some(claim) = Claim::of_queue(&link.consuming, queue).await? else {
            return Ok(None);
        };
        // The same in all replicas, see `Shards::prefetch`.
        let prefetch = link.shards().map_or(1, |shards| shards.prefetch);
        let tag = format!("eclusa-{}", std::process::id());
        let begun = OrderedConsumer::begin(&link.consuming, queue, &tag, prefetch);
        let consumer = match begun.await {
            Ok(consumer) => consumer,
            Err(error) => {
                claim.release().await;
                return Err(error);
            }
        };
        let sole = claim.is_sole(&link.consuming, queue).await;
        let ledger = Arc::new(ChannelLedger::ordered(metrics.ledgers.consume.clone()));
        let session = Self {
            _closed_at_the_end: ClosedAtTheEnd(ledger.clone()),
            consumer,
            claim,
            ledger,
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
        mut take: impl AsyncFnMut(Vec<Message>) -> Result<(), SessionError>,
        leave: impl Future<Output = Result<Leaving, SessionError>>,
        mut settle: impl AsyncFnMut(),
    ) -> Result<Leaving, SessionError> {
        const AT_ONCE: usize = 512;
        let mut chunks = self.consumer.chunks(AT_ONCE);
        let mut acknowledging = std::pin::pin!(acknowledge(self.consumer.channel(), &self.ledger));
        let mut leave = std::pin::pin!(leave);
        let taking = async {
            loop {
                // Left between two chunks only: what is taken is taken.
                let chunk = tokio::select! {
                    leaving = &mut leave => return leaving,
                    chunk = chunks.next() => chunk.ok_or(SessionError::StreamEnded)?,
                };
                take(chunk.into_iter().collect::<Result<Vec<_>, _>>()?).await?;
            }
        };
        let leaving = tokio::select! {
            leaving = taking => leaving?,
            result = &mut acknowledging => {
                result?;
                return Err(SessionError::Returned);
            }
        };
        settle().await;
        let since = Instant::now();
        while self.ledger.open_messages() > 0 {
            // A stopping process has a deadline of its own.
            if leaving == Leaving::GivenUp && since.elapsed() > SETTLE {
                break;
            }
            tokio::select! {
                result = &mut acknowledging => {
                    result?;
                    return Err(SessionError::Returned);
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        Ok(leaving)
    }

    /// Closes the channel, and only then lets others have the queue.
    pub async fn end(self) {
        self.ledger.close();
        self.consumer.end().await;
        self.claim.release().await;
    }
}

/// Waits until a queue has no owner, looking now and then; `false` when the process is stopping.
/// `may_take` hears how long it has had none.
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
        // Kept over the looks: there may be many shards to wait for.
        let over = match channel.take() {
            Some(channel) => channel,
            None => link.consuming.create_channel().await?,
        };
        let found = look_over(&over, queue).await?;
        channel = found.is_some().then_some(over);
        if !found.is_some_and(Look::is_vacant) {
            vacant_since = None;
            continue;
        }
        let since = *vacant_since.get_or_insert_with(Instant::now);
        if may_take(since.elapsed()) {
            return Ok(true);
        }
    }
}

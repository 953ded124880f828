//! `AmqpConsumer`: one channel on the work queue. Takes messages, hands their events to the
//! accumulator, and acknowledges what has been settled.

use super::ack_tracker::{AckTracker, CloseOnDrop};
use super::adaptive_prefetch::AdaptivePrefetch;
use super::message_decoder::{MessageDecoder, acknowledge};
use crate::batch::BatchAccumulator;
use crate::batch::messages::{AccumulatorMessage, Group, Push, PushMode};
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::error::kind_of;
use crate::broker::sessions;
use crate::broker::sessions::Next;
use crate::retry::breaker::Breaker;
use crate::store::ErrorKind;
use crate::supervision::{Lifecycle, Mailbox, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use bytesize::ByteSize;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, message::Delivery as Message};
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Messages that are handed over together.
const AT_ONCE: usize = 512;
/// After fewer messages than this, and fewer than half the prefetch, the consumer pauses, so that the
/// next messages are taken together: handing over one costs two threads as much as handing over fifty.
const FEW: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// What a consumer works with.
#[derive(Clone)]
pub struct AmqpConsumerParams {
    /// Which consumer of the process this is.
    pub index: usize,
    /// The connection in force.
    pub link: LinkWatch,
    /// How messages are read.
    pub decoder: MessageDecoder,
    /// The accumulator that collects the events.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// Whether the store is available.
    pub store_breaker: Breaker,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

/// One channel on the work queue.
pub struct AmqpConsumer {
    params: AmqpConsumerParams,
}

impl AmqpConsumer {
    /// A consumer that begins when there is a link.
    pub fn new(params: AmqpConsumerParams) -> Self {
        Self { params }
    }
}

impl Actor for AmqpConsumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(async move { params.run().await }.into_actor(self));
    }
}

// A restart drops the running session: its tracker closes, then its channel, and the broker requeues
// the messages in hand.
impl Supervised for AmqpConsumer {}

/// Why a session on a channel ended.
#[derive(Debug, thiserror::Error)]
enum ConsumeError {
    #[error("the consumer's stream ended")]
    StreamEnded,
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    #[error("the accumulator crashed over a message")]
    Accumulator,
    #[error("the store has been away for long")]
    StoreAway,
}

impl AmqpConsumerParams {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.decoder.settings.get());
        let mut window = self.window();
        let session = async |link: &Link| {
            if self.lifecycle.phase() == Phase::Draining {
                return Ok(Next::End);
            }
            let _drains_first = self.lifecycle.hold();
            self.session(link, &mut window).await.map(|()| Next::End)
        };
        let failed = async |link: &Link, error: ConsumeError| {
            tracing::warn!(consumer = self.index, %error, "consuming was interrupted");
            // A queue that was deleted is declared again when connecting.
            if matches!(&error, ConsumeError::Broker(error) if kind_of(error) == ErrorKind::Operator)
            {
                link.suspect();
            }
            if matches!(error, ConsumeError::StoreAway) {
                self.store_breaker.closed().await;
            }
        };
        sessions::run(self.link.clone(), &settings.broker, session, failed).await;
    }

    /// The consumers share half of `ingest.max_in_flight`; the other half is for HTTP requests.
    fn window(&self) -> AdaptivePrefetch {
        let settings = self.decoder.settings.get();
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let part = bytes(settings.ingest.max_in_flight) / 2 / settings.broker.channels.max(1);
        // A decoded frame takes about twice its size.
        let assumed = bytes(settings.broker.max_message_bytes).saturating_mul(2);
        AdaptivePrefetch::new(settings.broker.prefetch, part, assumed)
    }

    /// Consumes on one channel. `Ok` when it was drained.
    async fn session(
        &self,
        link: &Link,
        window: &mut AdaptivePrefetch,
    ) -> Result<(), ConsumeError> {
        let channel = link.consuming.create_channel().await?;
        let tracker = Arc::new(AckTracker::new(
            self.decoder.metrics.accounting.consume.clone(),
        ));
        // Dropped before the channel.
        let open = CloseOnDrop(tracker.clone());
        let result = self.consume_and_drain(&channel, &tracker, window).await;
        drop(open);
        if result.is_err()
            && self
                .accumulator
                .send(AccumulatorMessage::Discard)
                .await
                .is_err()
        {
            tracing::warn!("the accumulator crashed; the events it held return to their source");
        }
        result
    }

    async fn consume_and_drain(
        &self,
        channel: &Channel,
        tracker: &Arc<AckTracker>,
        window: &mut AdaptivePrefetch,
    ) -> Result<(), ConsumeError> {
        let release_after = self.decoder.settings.get().broker.release_after;
        let tag = Cell::new(0);
        // One future for the whole session: interrupted between taking settlements out of the
        // tracker and telling the broker, it would forget them.
        let mut acknowledging = std::pin::pin!(acknowledge(channel, tracker));
        tokio::select! {
            result = self.consume(channel, &tag, tracker, window) => result?,
            result = &mut acknowledging => return result.map_err(ConsumeError::from),
            () = self.store_breaker.away_for(release_after) => return Err(ConsumeError::StoreAway),
            () = self.lifecycle.reached(Phase::Draining) => {}
        }
        self.drain(channel, &self.tag(tag.get()), tracker, acknowledging)
            .await?;
        Ok(())
    }

    /// Runs one consumer after another on the channel, each with the prefetch that fits the recent
    /// messages.
    async fn consume(
        &self,
        channel: &Channel,
        tag: &Cell<usize>,
        tracker: &Arc<AckTracker>,
        window: &mut AdaptivePrefetch,
    ) -> Result<(), ConsumeError> {
        let queue = self.decoder.settings.get().broker.queue.clone();
        loop {
            let prefetch = window.prefetch();
            tracker.set_prefetch(prefetch);
            // Prefetch first: a consumer that starts without one is sent the whole queue.
            channel
                .basic_qos(prefetch, BasicQosOptions::default())
                .await?;
            let name = self.tag(tag.get());
            let consumer = channel
                .basic_consume(
                    queue.as_str().into(),
                    name.as_str().into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            tracing::info!(consumer = self.index, queue, prefetch, "consuming");
            // One for the consumer's life: it remembers the end, which may come with a chunk.
            let mut chunks = consumer.ready_chunks(AT_ONCE);
            let mut overflowed = self.take(channel, &mut chunks, tracker, window).await?;
            // What was delivered before the broker cancels comes before the stream's end. All of it
            // has to be taken, since delivery tags have no gaps.
            channel
                .basic_cancel(name.as_str().into(), BasicCancelOptions::default())
                .await?;
            while let Some(chunk) = chunks.next().await {
                if overflowed {
                    requeue(channel, chunk, tracker).await?;
                } else {
                    overflowed = self.push(channel, chunk, tracker, window).await?;
                }
            }
            window.adjust();
            if overflowed {
                self.make_room(tracker, window).await?;
            }
            tag.set(tag.get() + 1);
        }
    }

    fn tag(&self, round: usize) -> String {
        format!("eclusa-{}-{}-{round}", std::process::id(), self.index)
    }

    /// Takes messages until another prefetch would fit them better. Returns whether the messages in
    /// hand exceed their bound. The stream's end is a failure.
    async fn take(
        &self,
        channel: &Channel,
        chunks: &mut ReadyChunks<Consumer>,
        tracker: &Arc<AckTracker>,
        window: &mut AdaptivePrefetch,
    ) -> Result<bool, ConsumeError> {
        while let Some(chunk) = chunks.next().await {
            let few = chunk.len() < FEW.min(usize::from(window.prefetch()) / 2);
            let overflowed = self.push(channel, chunk, tracker, window).await?;
            if overflowed || window.is_off() {
                return Ok(overflowed);
            }
            if few {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(ConsumeError::StreamEnded)
    }

    /// Decodes messages and hands their events over. Once the messages in hand exceed their bound
    /// it requeues the others, to take them again with a smaller prefetch, and returns `true`.
    async fn push(
        &self,
        channel: &Channel,
        chunk: Vec<lapin::Result<Message>>,
        tracker: &Arc<AckTracker>,
        window: &mut AdaptivePrefetch,
    ) -> Result<bool, ConsumeError> {
        let mut shared = Vec::with_capacity(chunk.len());
        let mut groups = Vec::new();
        let mut overflowed = false;
        let mut chunk = chunk.into_iter();
        for message in chunk.by_ref() {
            let message = message?;
            let redelivered = message.redelivered;
            // It was in hand when something ended uncleanly, and may have been the cause.
            let mut alone = Vec::new();
            let group = if redelivered { &mut alone } else { &mut shared };
            let weight = self.decoder.read(message, tracker, group).await;
            window.saw(weight);
            if !alone.is_empty() {
                groups.push(Group {
                    mode: PushMode::AloneFirst,
                    deliveries: alone,
                });
            }
            overflowed = window.overflows(tracker.bytes());
            if overflowed {
                window.overflowed(weight);
                break;
            }
        }
        failpoint::hit("amqp_consumer.push");
        if !shared.is_empty() {
            groups.push(Group {
                mode: PushMode::Shared,
                deliveries: shared,
            });
        }
        if !groups.is_empty() {
            let push = Push {
                groups,
                window_spent: tracker.is_window_spent(),
            };
            // Awaiting the answer before taking more bounds what waits in the accumulator's mailbox.
            let pushed = self.accumulator.send(AccumulatorMessage::Push(push)).await;
            pushed.map_err(|_| ConsumeError::Accumulator)?;
        }
        if overflowed {
            let unread = chunk.len();
            requeue(channel, chunk, tracker).await?;
            tracing::info!(
                consumer = self.index,
                unread,
                "messages are larger than those before; requeueing what is not read yet"
            );
        }
        Ok(overflowed)
    }

    /// Waits until the messages in hand leave room for more. No more arrive meanwhile, so the open
    /// batch is due.
    async fn make_room(
        &self,
        tracker: &AckTracker,
        window: &AdaptivePrefetch,
    ) -> Result<(), ConsumeError> {
        let flushed = self.accumulator.send(AccumulatorMessage::Flush).await;
        flushed.map_err(|_| ConsumeError::Accumulator)?;
        while !window.has_room(tracker.bytes()) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Stops taking, lets what is in hand settle, and closes the channel behind the last
    /// acknowledgement, so that none is lost on the way.
    async fn drain(
        &self,
        channel: &Channel,
        tag: &str,
        tracker: &AckTracker,
        mut acknowledging: Pin<&mut impl Future<Output = Result<(), lapin::Error>>>,
    ) -> Result<(), lapin::Error> {
        channel
            .basic_cancel(tag.into(), BasicCancelOptions::default())
            .await?;
        tracing::info!(
            consumer = self.index,
            messages = tracker.open_messages(),
            "no longer consuming, settling what is in hand"
        );
        while tracker.open_messages() > 0 {
            tokio::select! {
                result = &mut acknowledging => return result,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        channel.close(200, "drained".into()).await
    }
}

/// Gives messages back to their queue unread.
async fn requeue(
    channel: &Channel,
    messages: impl IntoIterator<Item = lapin::Result<Message>>,
    tracker: &AckTracker,
) -> lapin::Result<()> {
    for message in messages {
        let tag = message?.delivery_tag;
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        channel.basic_nack(tag, options).await?;
        tracker.enter_requeued(tag);
    }
    Ok(())
}

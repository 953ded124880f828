//! `AmqpConsumer`: one channel on the work queue. Takes messages, hands their events to the
//! accumulator, and acknowledges what has been settled.

use super::batch_accumulator::{BatchAccumulator, Discard, Push, PushAlone};
use super::intake::{Intake, acknowledge};
use super::sessions::{self, Next};
use crate::broker::channel_ledger::ChannelLedger;
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::error::kind_of;
use crate::broker::window::Window;
use crate::store::ErrorKind;
use crate::supervision::{Breaker, Lifecycle, Mailbox, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use bytesize::ByteSize;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, message::Delivery as Message};
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Messages that are handed over together.
const AT_ONCE: usize = 512;
/// After fewer messages than this nothing is taken for a moment, so that the next ones come together:
/// handing over one costs two threads as much as handing over fifty. Nobody waits for them but readers,
/// who notice nothing; and the broker, where half of what it may send is fewer still.
const FEW: usize = 64;
const MOMENT: Duration = Duration::from_millis(5);

/// What a consumer is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Which consumer of the process this is.
    pub index: usize,
    /// The connection in force.
    pub link: LinkWatch,
    /// How messages are read.
    pub intake: Intake,
    /// Who gathers the events.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// Whether the store is there.
    pub store_breaker: Breaker,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
}

/// The actor.
pub struct AmqpConsumer {
    wiring: Wiring,
}

impl AmqpConsumer {
    /// A consumer that begins when there is a link.
    pub fn new(wiring: Wiring) -> Self {
        Self { wiring }
    }
}

impl Actor for AmqpConsumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let wiring = self.wiring.clone();
        ctx.spawn(async move { wiring.run().await }.into_actor(self));
    }
}

// A restart drops the running session, and with it the channel: the broker requeues what it had
// out, and tickets still out settle into the old channel's ledger, which nobody reads.
impl Supervised for AmqpConsumer {}

/// Why a session on a channel ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the consumer's stream ended")]
    StreamEnded,
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    #[error("the accumulator crashed over a message")]
    Accumulator,
    #[error("the store has been away for long")]
    StoreAway,
    #[error(
        "messages are larger than those before; what is on its way goes back and comes in smaller portions"
    )]
    TooLarge,
}

impl Wiring {
    /// One session after another until the process drains.
    async fn run(self) {
        let settings = Arc::clone(&self.intake.settings.get());
        let mut window = self.window();
        let session = async |link: &Link| {
            if self.lifecycle.phase() == Phase::Draining {
                return Ok(Next::End);
            }
            let _drains_first = self.lifecycle.hold();
            self.session(link, &mut window).await.map(|()| Next::End)
        };
        let failed = async |link: &Link, error: SessionError| {
            tracing::warn!(consumer = self.index, %error, "consuming was interrupted");
            // A queue that is not there any more is declared when connecting.
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

    /// A channel's part of the bytes in hand is half of those that may be on their way; the rest is
    /// for what comes over HTTP.
    fn window(&self) -> Window {
        let settings = self.intake.settings.get();
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let part = bytes(settings.ingest.max_in_flight) / 2 / settings.broker.channels.max(1);
        // A frame of that size takes about twice as much when it is read.
        let assumed = bytes(settings.broker.max_message_bytes).saturating_mul(2);
        Window::new(settings.broker.prefetch, part, assumed)
    }

    /// Consumes on one channel. `Ok` when it was drained.
    async fn session(&self, link: &Link, window: &mut Window) -> Result<(), SessionError> {
        let channel = link.consuming.create_channel().await?;
        let release_after = self.intake.settings.get().broker.release_after;
        let ledger = Arc::new(ChannelLedger::new(
            self.intake.metrics.ledgers.consume.clone(),
        ));
        let tag = Cell::new(0);
        // One future for the whole session: broken off between taking settlements out of the ledger
        // and telling the broker, it would forget them.
        let mut acknowledging = std::pin::pin!(acknowledge(&channel, &ledger));
        tokio::select! {
            result = self.consume(&channel, &tag, &ledger, window) => {
                if matches!(result, Err(SessionError::TooLarge)) {
                    channel.close(200, "messages are too large".into()).await?;
                }
                result?;
            }
            result = &mut acknowledging => return result.map_err(SessionError::from),
            () = self.store_breaker.away_for(release_after) => {
                // All that is in hand goes back, wherever it is, so that none of it is written
                // later under a channel that is gone.
                if self.accumulator.send(Discard).await.is_err() {
                    tracing::warn!("the accumulator crashed; what it held has returned");
                }
                channel.close(200, "the store is away".into()).await?;
                return Err(SessionError::StoreAway);
            }
            () = self.lifecycle.reached(Phase::Draining) => {}
        }
        self.drain(&channel, &self.tag(tag.get()), &ledger, acknowledging)
            .await?;
        Ok(())
    }

    /// One consumer after another on the channel, each with the prefetch that fits the messages of
    /// the time.
    async fn consume(
        &self,
        channel: &Channel,
        tag: &Cell<usize>,
        ledger: &Arc<ChannelLedger>,
        window: &mut Window,
    ) -> Result<(), SessionError> {
        let queue = self.intake.settings.get().broker.queue.clone();
        loop {
            let prefetch = window.prefetch();
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
            self.take(&mut chunks, ledger, window).await?;
            // What was delivered until the broker knew comes before the stream's end, so that the
            // ledger sees all messages in their order.
            channel
                .basic_cancel(name.as_str().into(), BasicCancelOptions::default())
                .await?;
            while let Some(chunk) = chunks.next().await {
                self.push(chunk, ledger, window).await?;
            }
            window.adjust();
            tag.set(tag.get() + 1);
        }
    }

    fn tag(&self, round: usize) -> String {
        format!("eclusa-{}-{}-{round}", std::process::id(), self.index)
    }

    /// Takes messages until another prefetch would fit them better. The stream's end is a failure.
    async fn take(
        &self,
        chunks: &mut ReadyChunks<Consumer>,
        ledger: &Arc<ChannelLedger>,
        window: &mut Window,
    ) -> Result<(), SessionError> {
        while let Some(chunk) = chunks.next().await {
            let few = chunk.len() < FEW.min(usize::from(window.prefetch()) / 2);
            self.push(chunk, ledger, window).await?;
            if window.is_off() {
                return Ok(());
            }
            if few {
                tokio::time::sleep(MOMENT).await;
            }
        }
        Err(SessionError::StreamEnded)
    }

    /// Reads messages and hands their events over. More bytes than the window was meant to let in
    /// end the session: what has not been read yet is then read in smaller portions.
    async fn push(
        &self,
        chunk: Vec<lapin::Result<Message>>,
        ledger: &Arc<ChannelLedger>,
        window: &mut Window,
    ) -> Result<(), SessionError> {
        let mut deliveries = Vec::with_capacity(chunk.len());
        let mut suspects = Vec::new();
        let mut overflows = false;
        for message in chunk {
            let message = message?;
            let redelivered = message.redelivered;
            // It was in hand when something ended uncleanly, and may have been the cause.
            let mut alone = Vec::new();
            let group = if redelivered {
                &mut alone
            } else {
                &mut deliveries
            };
            let weight = self.intake.read(message, ledger, group).await;
            window.saw(weight);
            if !alone.is_empty() {
                suspects.push(alone);
            }
            overflows = window.overflows(ledger.bytes());
            if overflows {
                break;
            }
        }
        failpoint::hit("amqp_consumer.push");
        // Waits for room in the mailbox: that is the back-pressure towards the broker.
        if !suspects.is_empty() {
            let pushed = self.accumulator.send(PushAlone(suspects)).await;
            pushed.map_err(|_| SessionError::Accumulator)?;
        }
        if !deliveries.is_empty() {
            let pushed = self.accumulator.send(Push(deliveries)).await;
            pushed.map_err(|_| SessionError::Accumulator)?;
        }
        if overflows {
            window.adjust();
            return Err(SessionError::TooLarge);
        }
        Ok(())
    }

    /// Stops taking, lets what is in hand settle, and closes the channel behind the last
    /// acknowledgement, so that none is lost on the way.
    async fn drain(
        &self,
        channel: &Channel,
        tag: &str,
        ledger: &ChannelLedger,
        mut acknowledging: Pin<&mut impl Future<Output = Result<(), lapin::Error>>>,
    ) -> Result<(), lapin::Error> {
        channel
            .basic_cancel(tag.into(), BasicCancelOptions::default())
            .await?;
        tracing::info!(
            consumer = self.index,
            messages = ledger.open_messages(),
            "no longer consuming, settling what is in hand"
        );
        while ledger.open_messages() > 0 {
            tokio::select! {
                result = &mut acknowledging => return result,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        channel.close(200, "drained".into()).await
    }
}

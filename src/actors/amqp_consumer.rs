//! `AmqpConsumer`: one channel on the work queue. Takes messages, hands their events to the
//! accumulator, and acknowledges what has been settled.

use super::batch_accumulator::{BatchAccumulator, Discard, Push, PushAlone};
use super::retry_supervisor::{RetrySupervisor, Unreadable};
use crate::broker::channel_ledger::{Acknowledgement, ChannelLedger};
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::dead_letter;
use crate::broker::error::kind_of;
use crate::broker::message::{self, Rulebook};
use crate::config::LiveSettings;
use crate::event::{Delivery, Ticket};
use crate::metrics::Metrics;
use crate::store::ErrorKind;
use crate::supervision::{Backoff, Breaker, Budget, Lifecycle, Mailbox, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, message::Delivery as Message};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a consumer is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Which consumer of the process this is.
    pub index: usize,
    /// The connection in force.
    pub link: LinkWatch,
    /// Settings; the limits among them change at run time.
    pub settings: LiveSettings,
    /// Who gathers the events.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// Who takes what is no event.
    pub retry: Mailbox<RetrySupervisor>,
    /// Whether the store is there.
    pub store_breaker: Breaker,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// When to stop taking.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
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
}

impl Wiring {
    /// One session after another until the process drains.
    async fn run(mut self) {
        let (min, max) = {
            let settings = self.settings.get();
            (settings.broker.reconnect_min, settings.broker.reconnect_max)
        };
        let mut backoff = Backoff::new(min, max);
        loop {
            let Ok(link) = self.link.wait_for(Option::is_some).await.map(|l| l.clone()) else {
                return;
            };
            let Some(link) = link else { continue };
            if self.lifecycle.phase() == Phase::Draining {
                return;
            }
            let began = Instant::now();
            let _drains_first = self.lifecycle.hold();
            match self.session(&link).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(consumer = self.index, %error, "consuming was interrupted");
                    // A queue that is not there any more is declared when connecting.
                    let gone = matches!(&error, SessionError::Broker(error)
                        if kind_of(error) == ErrorKind::Operator);
                    if gone || !link.consuming.status().connected() {
                        link.suspect();
                    }
                    if matches!(error, SessionError::StoreAway) {
                        self.store_breaker.closed().await;
                    }
                }
            }
            drop(link);
            if began.elapsed() > max {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Consumes on one channel. `Ok` when it was drained.
    async fn session(&self, link: &Link) -> Result<(), SessionError> {
        let channel = link.consuming.create_channel().await?;
        let (queue, prefetch, release_after) = {
            let settings = self.settings.get();
            let broker = &settings.broker;
            (broker.queue.clone(), broker.prefetch, broker.release_after)
        };
        // Prefetch first: a consumer that starts without one is sent the whole queue.
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        let tag = format!("eclusa-{}-{}", std::process::id(), self.index);
        let consumer = channel
            .basic_consume(
                queue.as_str().into(),
                tag.as_str().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        tracing::info!(consumer = self.index, queue, prefetch, "consuming");
        let ledger = Arc::new(ChannelLedger::new(self.metrics.ledgers.consume.clone()));
        // One future for the whole session: broken off between taking settlements out of the ledger
        // and telling the broker, it would forget them.
        let mut acknowledging = std::pin::pin!(acknowledge(&channel, &ledger));
        tokio::select! {
            result = self.take(consumer, &ledger) => result?,
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
        self.drain(&channel, &tag, &ledger, acknowledging).await?;
        Ok(())
    }

    /// Takes messages until the stream ends, which is a failure.
    async fn take(
        &self,
        consumer: Consumer,
        ledger: &Arc<ChannelLedger>,
    ) -> Result<(), SessionError> {
        const AT_ONCE: usize = 512;
        let mut chunks = consumer.ready_chunks(AT_ONCE);
        while let Some(chunk) = chunks.next().await {
            let mut deliveries = Vec::with_capacity(chunk.len());
            let mut suspects = Vec::new();
            for message in chunk {
                let message = message?;
                if message.redelivered {
                    // It was in hand when something ended uncleanly, and may have been the cause.
                    let mut alone = Vec::new();
                    self.read(message, ledger, &mut alone).await;
                    suspects.push(alone);
                } else {
                    self.read(message, ledger, &mut deliveries).await;
                }
            }
            failpoint::hit("amqp_consumer.push");
            // Waits for room in the mailbox: that is the back-pressure towards the broker.
            suspects.retain(|group| !group.is_empty());
            if !suspects.is_empty() {
                let pushed = self.accumulator.send(PushAlone(suspects)).await;
                pushed.map_err(|_| SessionError::Accumulator)?;
            }
            if !deliveries.is_empty() {
                let pushed = self.accumulator.send(Push(deliveries)).await;
                pushed.map_err(|_| SessionError::Accumulator)?;
            }
        }
        Err(SessionError::StreamEnded)
    }

    /// Enters a message in the ledger and makes deliveries of its events.
    async fn read(
        &self,
        message: Message,
        ledger: &Arc<ChannelLedger>,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.metrics.messages_consumed.inc();
        let rules = {
            let settings = self.settings.get();
            Rulebook {
                limits: settings.ingest.item_limits(),
                producer: settings.ingest.producer.as_str().into(),
                missing_id: settings.broker.missing_id,
                again: None,
            }
        };
        let tag = message.delivery_tag;
        let contents = message::read(&message.data, &message.properties, &rules);
        let tickets = contents.events.len() + contents.bad.len();
        ledger.enter(tag, tickets, self.budget.take(message.data.len()));
        for event in contents.events {
            let first = contents.attempts == 0 && contents.letter.is_none();
            if event.source == crate::event::Source::Amqp && first {
                self.metrics.accepted.with_label_values(&["amqp"]).inc();
            }
            let mut delivery = Delivery::new(event, Ticket::new(ledger.clone(), tag));
            delivery.attempts = contents.attempts;
            delivery.letter = contents.letter;
            delivery
                .span
                .in_scope(|| tracing::debug!(redelivered = message.redelivered, "consumed"));
            deliveries.push(delivery);
        }
        for bad in contents.bad {
            let property = |text: &Option<lapin::types::ShortString>| {
                text.as_ref().map(|text| text.as_str().to_owned())
            };
            let mut headers = dead_letter::headers_of(&message.properties);
            if let Some(item) = bad.item {
                headers.insert(dead_letter::ITEM.to_owned(), item.into());
            }
            let properties = &message.properties;
            let unreadable = Unreadable {
                letter: dead_letter::id_of(properties, &bad.body, bad.item, rules.missing_id),
                frame: dead_letter::is_frame(properties),
                headers,
                body: bad.body,
                content_type: property(message.properties.content_type()),
                message_id: property(message.properties.message_id()),
                ticket: Ticket::new(ledger.clone(), tag),
                cause: bad.cause,
                error: bad.error,
            };
            // While there is room nobody waits for the dead letter's confirm; when there is none,
            // waiting is the back-pressure.
            if let Err(rejected) = self.retry.try_send(unreadable)
                && self.retry.send(rejected.into_message()).await.is_err()
            {
                tracing::warn!("the retry supervisor crashed; a message returns to its queue");
            }
        }
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

/// Tells the broker what has been settled, for as long as the channel lives.
async fn acknowledge(channel: &Channel, ledger: &ChannelLedger) -> Result<(), lapin::Error> {
    loop {
        for acknowledgement in ledger.take_settled() {
            failpoint::hit("amqp_consumer.acknowledge");
            match acknowledgement {
                Acknowledgement::UpTo(tag) => {
                    let options = BasicAckOptions { multiple: true };
                    channel.basic_ack(tag, options).await?;
                }
                Acknowledgement::Requeue(tag) => {
                    let options = BasicNackOptions {
                        multiple: false,
                        requeue: true,
                    };
                    channel.basic_nack(tag, options).await?;
                }
            }
        }
        ledger.told();
        ledger.changed().await;
    }
}

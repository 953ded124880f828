//! `DeadLetterProjector`: moves dead letters from their queue into the table, where they can be
//! read, replayed and purged. Acknowledges behind the commit, so a letter is always in at least one
//! of the two.
//!
//! Replicas may compete for the queue: a letter that is delivered twice is buried once.

use super::sessions::{self, Next};
use crate::broker::connection::{Link, LinkWatch};
use crate::broker::dead_letter;
use crate::config::broker::BrokerSettings;
use crate::event::Cause;
use crate::metrics::Metrics;
use crate::store::dead_letters::DeadLetter;
use crate::store::{DeadLetterStore, ErrorKind, StoreError};
use crate::supervision::{Backoff, Lifecycle, Phase, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use lapin::Channel;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;

/// Letters in hand at once. Their bodies may be large; dead letters are in no hurry.
const PREFETCH: u16 = 32;

/// What the projector is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// The connection in force.
    pub link: LinkWatch,
    /// Names and pauses.
    pub settings: BrokerSettings,
    /// The table.
    pub letters: Arc<dyn DeadLetterStore>,
    /// When to stop.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct DeadLetterProjector {
    wiring: Wiring,
}

impl DeadLetterProjector {
    /// A projector that begins when there is a link.
    pub fn new(wiring: Wiring) -> Self {
        Self { wiring }
    }
}

impl Actor for DeadLetterProjector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let wiring = self.wiring.clone();
        ctx.spawn(
            async move {
                let lifecycle = wiring.lifecycle.clone();
                // Broken off at any point: what is not acknowledged is delivered again.
                tokio::select! {
                    () = wiring.run() => {}
                    () = lifecycle.reached(Phase::Draining) => {}
                }
            }
            .into_actor(self),
        );
    }
}

// A restart drops the session and its channel, and the broker delivers again what was in hand.
impl Supervised for DeadLetterProjector {}

/// Why a session on a channel ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the consumer's stream ended")]
    StreamEnded,
    #[error("{0}")]
    Broker(#[from] lapin::Error),
}

impl Wiring {
    /// One session after another.
    async fn run(self) {
        let session = async |link: &Link| self.session(link).await;
        let failed = async |_: &Link, error: SessionError| {
            tracing::warn!(%error, "projecting dead letters was interrupted");
        };
        sessions::run(self.link.clone(), &self.settings, session, failed).await;
    }

    /// Consumes on one channel until that fails.
    async fn session(&self, link: &Link) -> Result<Next, SessionError> {
        let channel = link.consuming.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let tag = format!("eclusa-{}-dead-letters", std::process::id());
        let consumer = channel
            .basic_consume(
                self.settings.dead_letter_queue.as_str().into(),
                tag.as_str().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut chunks = consumer.ready_chunks(usize::from(PREFETCH));
        while let Some(chunk) = chunks.next().await {
            let messages = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.project(&channel, messages).await?;
        }
        Err(SessionError::StreamEnded)
    }

    /// Buries the letters and acknowledges them.
    async fn project(&self, channel: &Channel, messages: Vec<Message>) -> lapin::Result<()> {
        let mut batch: Vec<_> = messages
            .into_iter()
            .map(|message| {
                let (body, properties) = (message.data, &message.properties);
                let letter = dead_letter::read(body, properties, self.settings.missing_id);
                (
                    message.delivery_tag,
                    letter,
                    !dead_letter::is_of_eclusa(properties),
                )
            })
            .collect();
        failpoint::hit("dead_letter_projector.bury");
        // Most often all at once; one by one when a letter among them is refused.
        if self
            .bury(batch.iter().map(|(_, l, _)| l.clone()).collect())
            .await
        {
            return self.acknowledge(channel, &batch).await;
        }
        for one in batch.drain(..) {
            if self.bury(vec![one.1.clone()]).await {
                self.acknowledge(channel, &[one]).await?;
            } else {
                // It stays unacknowledged, and so on its queue.
                tracing::error!(letter = %one.1.id, "the store refuses this dead letter");
            }
        }
        Ok(())
    }

    /// Waits for as long as the store is away. `false` when it refuses the letters for good.
    async fn bury(&self, letters: Vec<DeadLetter>) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.letters.bury(letters.clone()).await {
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Poison => {
                    log_failure(&error, letters.len());
                    return false;
                }
                Err(error) => log_failure(&error, letters.len()),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    async fn acknowledge(
        &self,
        channel: &Channel,
        letters: &[(u64, DeadLetter, bool)],
    ) -> lapin::Result<()> {
        failpoint::hit("dead_letter_projector.after_commit");
        for (tag, letter, by_broker) in letters {
            if *by_broker {
                // Those that Eclusa put there were counted then.
                let cause = Cause::parse(&letter.failure.cause).unwrap_or(Cause::Unknown);
                let labels = [cause.as_str()];
                self.metrics.dead_lettered.with_label_values(&labels).inc();
            }
            // Each for itself: one that the store refused must stay.
            channel.basic_ack(*tag, BasicAckOptions::default()).await?;
        }
        tracing::debug!(letters = letters.len(), "dead letters projected");
        Ok(())
    }
}

fn log_failure(error: &StoreError, letters: usize) {
    tracing::error!(
        kind = error.kind().as_str(),
        sqlstate = error.sqlstate(),
        %error,
        letters,
        "dead letters not projected; they stay on their queue"
    );
}

//! `DeadLetterProjector`: moves dead letters from their queue into the table, where they are read,
//! replayed and purged. It acknowledges after the commit, so a dead letter is always in at least one
//! of the two.
//!
//! Replicas may compete for the queue: a dead letter that is delivered twice is inserted once.

use crate::broker::connection::{Link, LinkWatch};
use crate::broker::sessions;
use crate::broker::sessions::Next;
use crate::broker::{dead_letter, headers};
use crate::config::broker::BrokerSettings;
use crate::metrics::Metrics;
use crate::retry::policy;
use crate::store::dead_letters::DeadLetter;
use crate::store::{DeadLetterStore, StoreError};
use crate::supervision::{Backoff, Lifecycle, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use lapin::Channel;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;

/// Unacknowledged dead letters at one time. Their bodies may be large.
const PREFETCH: u16 = 32;

/// What the projector works with.
#[derive(Clone)]
pub struct DeadLetterProjectorParams {
    pub link: LinkWatch,
    /// Names of queues, and pauses.
    pub settings: BrokerSettings,
    pub letters: Arc<dyn DeadLetterStore>,
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
}

/// Projects the dead-letter queue.
pub struct DeadLetterProjector {
    params: DeadLetterProjectorParams,
}

impl DeadLetterProjector {
    /// A projector that begins when there is a connection.
    pub fn new(params: DeadLetterProjectorParams) -> Self {
        Self { params }
    }
}

impl Actor for DeadLetterProjector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(
            async move {
                let lifecycle = params.lifecycle.clone();
                // May end at any point: what is not acknowledged is delivered again.
                lifecycle.unless_draining(params.run()).await;
            }
            .into_actor(self),
        );
    }
}

// A restart drops the session and its channel, and the broker delivers its messages again.
impl Supervised for DeadLetterProjector {}

/// Why a session on a channel ended.
#[derive(Debug, thiserror::Error)]
enum ProjectionError {
    #[error("the consumer's stream ended")]
    StreamEnded,
    #[error("{0}")]
    Broker(#[from] lapin::Error),
}

impl DeadLetterProjectorParams {
    /// One session after another.
    async fn run(self) {
        let session = async |link: &Link| self.session(link).await;
        let failed = async |_: &Link, error: ProjectionError| {
            tracing::warn!(%error, "projecting dead letters was interrupted");
        };
        sessions::run(self.link.clone(), &self.settings, session, failed).await;
    }

    /// Consumes on one channel until that fails.
    async fn session(&self, link: &Link) -> Result<Next, ProjectionError> {
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
        Err(ProjectionError::StreamEnded)
    }

    /// Inserts the dead letters and acknowledges them.
    async fn project(&self, channel: &Channel, messages: Vec<Message>) -> lapin::Result<()> {
        let mut batch: Vec<_> = messages
            .into_iter()
            .map(|message| {
                let (body, properties) = (message.data, &message.properties);
                let letter = dead_letter::read(body, properties, self.settings.missing_id);
                (
                    message.delivery_tag,
                    letter,
                    !headers::is_of_eclusa(properties),
                )
            })
            .collect();
        failpoint::hit("dead_letter_projector.bury");
        // Usually all at once; one by one when one of them is refused.
        if self
            .insert(batch.iter().map(|(_, l, _)| l.clone()).collect())
            .await
        {
            return self.acknowledge(channel, &batch).await;
        }
        for one in batch.drain(..) {
            if self.insert(vec![one.1.clone()]).await {
                self.acknowledge(channel, &[one]).await?;
            } else {
                // Unacknowledged, it stays on its queue.
                tracing::error!(letter = %one.1.id, "the store refuses this dead letter");
            }
        }
        Ok(())
    }

    /// Waits for as long as the store is unavailable. `false` if it never accepts the dead letters.
    async fn insert(&self, letters: Vec<DeadLetter>) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.letters.insert(letters.clone()).await {
                Ok(_) => return true,
                Err(error) if policy::is_refused(&error) => {
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
                // Those that Eclusa published were counted then.
                let labels = [letter.cause().as_str()];
                self.metrics.dead_lettered.with_label_values(&labels).inc();
            }
            // One by one: one that the store refused must stay.
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

//! The accumulators of the process: one, or with an order by user one for each shard.

use super::batch_accumulator::BatchAccumulator;
use super::messages::AccumulatorMessage;
use crate::config::batch::BatchSettings;
use crate::supervision::Mailbox;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// All accumulators; clones share them.
#[derive(Clone)]
pub struct WriterPartitions {
    first: Mailbox<BatchAccumulator>,
    others: Arc<[Mailbox<BatchAccumulator>]>,
    /// Those of sources that keep an order of their own.
    sources: Arc<[Mailbox<BatchAccumulator>]>,
}

impl WriterPartitions {
    /// The accumulators in the order of their shards.
    pub fn new(first: Mailbox<BatchAccumulator>, others: Vec<Mailbox<BatchAccumulator>>) -> Self {
        Self {
            first,
            others: others.into(),
            sources: Arc::default(),
        }
    }

    /// The same with the accumulators of sources that keep an order of their own.
    #[must_use]
    pub fn with_sources(self, sources: Vec<Mailbox<BatchAccumulator>>) -> Self {
        Self {
            sources: sources.into(),
            ..self
        }
    }

    /// The accumulators of the shards, in their order.
    pub fn shards(&self) -> impl Iterator<Item = &Mailbox<BatchAccumulator>> {
        std::iter::once(&self.first).chain(self.others.iter())
    }

    /// The accumulator for events that keep no order.
    pub fn any(&self) -> &Mailbox<BatchAccumulator> {
        &self.first
    }

    /// All accumulators.
    pub fn all(&self) -> impl Iterator<Item = &Mailbox<BatchAccumulator>> {
        self.shards().chain(self.sources.iter())
    }

    /// Tells all accumulators that a reader waits for an event that may be in an open batch.
    /// Returns whether each of them had room for it.
    pub fn nudge(&self) -> bool {
        let nudge = |lane: &&Mailbox<_>| lane.try_send(AccumulatorMessage::Nudge).is_err();
        self.all().filter(nudge).count() == 0
    }

    /// Replaces the settings of all open batches.
    pub async fn reconfigure(&self, settings: &BatchSettings) {
        for lane in self.all() {
            let message = AccumulatorMessage::Reconfigure(settings.clone());
            if lane.send(message).await.is_err() {
                tracing::error!("an accumulator crashed over its new settings");
            }
        }
    }

    /// Makes every open batch due, and all later events; returns when every accumulator knows.
    pub async fn drain(&self) {
        join_all(self.all().map(async |lane| {
            while lane.send(AccumulatorMessage::Drain).await.is_err() {
                // It crashed over this very message and restarts.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
        .await;
    }
}

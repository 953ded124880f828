//! The ways into the store. Without an order there is one, with as many writers as are to write at
//! once; with an order by user there is one for each shard, with one writer.

use super::batch_accumulator::{BatchAccumulator, Drain, Nudge, Reconfigure};
use super::handoff::Handoff;
use crate::config::batch::BatchSettings;
use crate::supervision::Mailbox;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// The accumulators of all lanes; clones share them.
#[derive(Clone)]
pub struct Lanes {
    first: Mailbox<BatchAccumulator>,
    handoff: Handoff,
    others: Arc<[Mailbox<BatchAccumulator>]>,
}

impl Lanes {
    /// Lanes in the order of their shards; of the first one also the way for callers who wait.
    pub fn new(
        (first, handoff): (Mailbox<BatchAccumulator>, Handoff),
        others: Vec<Mailbox<BatchAccumulator>>,
    ) -> Self {
        Self {
            first,
            handoff,
            others: others.into(),
        }
    }

    /// A lane for events that keep no order.
    pub fn any(&self) -> &Mailbox<BatchAccumulator> {
        &self.first
    }

    /// The way into that lane for events whose callers wait.
    pub fn handoff(&self) -> &Handoff {
        &self.handoff
    }

    /// All of them, in the order of their shards.
    pub fn all(&self) -> impl Iterator<Item = &Mailbox<BatchAccumulator>> {
        std::iter::once(&self.first).chain(self.others.iter())
    }

    /// A reader waits for an event that may lie in an open batch. Whether all have heard it.
    pub fn nudge(&self) -> bool {
        let deaf = self.all().filter(|lane| lane.try_send(Nudge).is_err());
        deaf.count() == 0
    }

    /// New bounds for all open batches.
    pub async fn reconfigure(&self, settings: &BatchSettings) {
        for lane in self.all() {
            if lane.send(Reconfigure(settings.clone())).await.is_err() {
                tracing::error!("an accumulator crashed over its new settings");
            }
        }
    }

    /// Lets every open batch go, and all that still comes, until every accumulator has heard it.
    pub async fn drain(&self) {
        join_all(self.all().map(async |lane| {
            while lane.send(Drain).await.is_err() {
                // It crashed over this very message; it will be back.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
        .await;
    }
}

//! The effects of a projection, each in the transaction of a step.

use super::projection::Projection;
use crate::store::commit_log::LoggedEvent;
use crate::store::transaction::{Effect, EffectError, Transaction};
use crate::supervision::failpoint;
use async_trait::async_trait;
use std::sync::Arc;

/// Applies a chunk.
pub(super) struct ApplyChunk {
    pub(super) projection: Arc<dyn Projection>,
    pub(super) events: Arc<[LoggedEvent]>,
}

#[async_trait]
impl Effect for ApplyChunk {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        failpoint::hit("follower.before_apply");
        self.projection.apply(transaction, &self.events).await?;
        failpoint::hit("follower.after_apply");
        Ok(())
    }
}

/// Undoes all that was applied.
pub(super) struct Reset(pub(super) Arc<dyn Projection>);

#[async_trait]
impl Effect for Reset {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        self.0.reset(transaction).await
    }
}

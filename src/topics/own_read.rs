//! Reads of a subscriber that is behind the newest events.

use super::excerpt::{Excerpt, OwnExcerpt};
use super::shared::Shared;
use crate::event::budget::Permit;
use crate::event::schemas::SchemaView;
use crate::store::commit_log::{LoggedEvent, Span, TypePatterns};
use crate::store::{ErrorKind, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// Most events of a read, and most bytes of their payloads, roughly.
pub(super) const MOST_EVENTS: usize = 1_000;
pub(super) const MOST_BYTES: usize = 256 * 1024;
/// How often one looks for room that waits for it.
const ROOM: Duration = Duration::from_millis(20);

impl Shared {
    /// Reads behind a position, after a pause, when there is room for it and the subscriber's turn has come.
    pub(super) async fn read_own(
        self: Arc<Self>,
        types: TypePatterns,
        schema: SchemaView,
        span: Span,
        pause: Duration,
    ) -> Result<OwnExcerpt, StoreError> {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let mut permit = self.room().await;
        let turn = self.turns.acquire().await;
        let turn = turn.map_err(|_| StoreError::new(ErrorKind::Outage, "the process is ending"))?;
        let read = self.store.read_topic(&types, span).await?;
        drop(turn);
        self.metrics.topic_reads.with_label_values(&["own"]).inc();
        let is_newest = read.chunk.read_to >= read.end;
        let schemas = self.settings.get().event_schemas().clone();
        let mut chunk = read.chunk;
        let events = chunk.events.into_iter();
        chunk.events = events
            .map(|logged| LoggedEvent {
                event: schemas.viewed(schema, logged.event),
                ..logged
            })
            .collect();
        let excerpt = Excerpt::new(chunk, None)?;
        let bytes = excerpt.bytes();
        if !permit.try_resize(bytes) {
            // A single event may be larger than what a read aims at.
            permit = self.budget.take(bytes);
        }
        Ok(OwnExcerpt {
            excerpt,
            is_newest,
            deleted_to: read.deleted_to,
            _permit: permit,
        })
    }

    /// Waits until there is room for a read.
    async fn room(&self) -> Permit {
        loop {
            if let Some(permit) = self.budget.try_take_alone(MOST_BYTES) {
                return permit;
            }
            tokio::time::sleep(ROOM).await;
        }
    }
}

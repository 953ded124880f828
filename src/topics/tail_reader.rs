//! `TailReader`: reads the end of the log for all subscribers there, while there are any.

use super::excerpt::Excerpt;
use super::own_read::{MOST_BYTES, MOST_EVENTS};
use super::shared::Shared;
use super::tail::ReadPlan;
use crate::event::schemas::SchemaView;
use crate::followers::LogEnd;
use crate::store::StoreError;
use crate::store::commit_log::{Position, Span};
use crate::supervision::{Backoff, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two reads, in which commits gather: each read wakes all subscribers.
const PACE: Duration = Duration::from_millis(10);
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) struct TailReader {
    shared: Arc<Shared>,
}

impl TailReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Actor for TailReader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let shared = Arc::clone(&self.shared);
        ctx.spawn(
            async move {
                let lifecycle = shared.lifecycle.clone();
                lifecycle
                    .unless_draining(shared.read_again_and_again())
                    .await;
            }
            .into_actor(self),
        );
    }
}

// A restart goes on behind what the ring has.
impl Supervised for TailReader {}

impl Shared {
    /// Never ends.
    async fn read_again_and_again(&self) {
        loop {
            if self.tail.plan().is_some() {
                // While this is held, the end of the log is watched closely.
                let mut end = self.log.subscribe();
                self.read_while_wanted(&mut end).await;
            }
            self.tail.changed().await;
        }
    }

    async fn read_while_wanted(&self, end: &mut watch::Receiver<LogEnd>) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        while let Some(plan) = self.tail.plan() {
            let (at, quiet) = {
                let log = end.borrow_and_update();
                (log.end, log.is_quiet(&plan.types, plan.after))
            };
            if plan.after >= at {
                tokio::select! {
                    changed = end.changed() => if changed.is_err() {
                        // The process is at its end.
                        return;
                    },
                    () = self.tail.changed() => {}
                }
                continue;
            }
            if quiet {
                self.tail.pass(&plan, at);
                continue;
            }
            match self.read_tail(&plan).await {
                Ok(()) => {
                    backoff.reset();
                    tokio::time::sleep(PACE).await;
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(
                        kind = error.kind().as_str(),
                        %error,
                        again_in_ms = pause.as_millis() as u64,
                        "the newest events cannot be read for subscribers"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn read_tail(&self, plan: &ReadPlan) -> Result<(), StoreError> {
        let span = Span {
            after: plan.after,
            until: Position::MAX,
            events: MOST_EVENTS,
            bytes: MOST_BYTES,
        };
        let read = self.store.read_topic(&plan.types, span).await?;
        failpoint::hit("topics.tail_read");
        self.metrics
            .topic_reads
            .with_label_values(&["shared"])
            .inc();
        if read.deleted_to > plan.after {
            self.tail.restart(read.deleted_to.max(read.chunk.read_to));
            return Ok(());
        }
        let schemas = self.settings.get().event_schemas().clone();
        let schemas = (plan.schema == SchemaView::Latest).then_some(&schemas);
        self.tail.extend(plan, Excerpt::new(read.chunk, schemas)?);
        Ok(())
    }
}

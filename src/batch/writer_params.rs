//! What a writer works with.

use super::messages::AccumulatorMessage;
use crate::config::retry::RetrySettings;
use crate::event::read_waiters::ReadWaiters;
use crate::followers::CommitSignal;
use crate::metrics::Metrics;
use crate::retry::breaker::Breaker;
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::EventStore;
use crate::supervision::{Mailbox, MessageSender};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a [`super::DbWriter`] works with.
#[derive(Clone)]
pub struct DbWriterParams {
    /// The writer's index among those of its accumulator.
    pub index: usize,
    pub store: Arc<dyn EventStore>,
    /// Whether the store is available.
    pub breaker: Breaker,
    /// The accumulator that gives it batches.
    pub accumulator: MessageSender<AccumulatorMessage>,
    /// Bounds the writes at one time, over all writers.
    pub turns: Arc<Semaphore>,
    /// Takes rows that could not be written.
    pub retry: Mailbox<RetrySupervisor>,
    /// How often an event may fail.
    pub attempts: RetrySettings,
    /// How long callers wait.
    pub ingest_timeout: Duration,
    /// How long one write may take.
    pub write_timeout: Duration,
    /// When the store has been away for so long, events return to the broker.
    pub release_after: Duration,
    /// Readers that wait for events.
    pub read_waiters: ReadWaiters,
    /// Wakes the followers of the log.
    pub commits: CommitSignal,
    pub metrics: Arc<Metrics>,
}

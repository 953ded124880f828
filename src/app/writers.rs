//! Starts the accumulators and their writers.

use crate::batch::batch_accumulator;
use crate::batch::batch_accumulator::BatchAccumulator;
use crate::batch::db_writer::DbWriter;
use crate::batch::waiting_events::WaitingEvents;
use crate::batch::writer_params::DbWriterParams;
use crate::batch::writer_partitions::WriterPartitions;
use crate::config::{Mode, Settings};
use crate::event::Shards;
use crate::event::read_waiters::ReadWaiters;
use crate::followers::CommitSignal;
use crate::ingest::IngestQueue;
use crate::retry::breaker::Breaker;
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::EventStore;
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Messages in an accumulator's mailbox before `try_send` fails. Senders of events await their answer,
/// so there is one push of each consumer; prefetch and the budget of bytes bound the events.
const ACCUMULATOR_MAILBOX: usize = 1_024;
/// A writer is sent one batch at a time, and `AskReady`.
const WRITER_MAILBOX: usize = 8;

/// What all writers work with.
pub(super) struct Writers<'a> {
    pub(super) starter: &'a Starter,
    pub(super) arbiter: &'a Arbiter,
    pub(super) settings: &'a Settings,
    pub(super) store: &'a Arc<dyn EventStore>,
    pub(super) breaker: &'a Breaker,
    pub(super) retry: &'a Mailbox<RetrySupervisor>,
    pub(super) read_waiters: &'a ReadWaiters,
    pub(super) commits: &'a CommitSignal,
}

impl Writers<'_> {
    /// Starts one accumulator with several writers, or one for each shard with one writer; the queue
    /// is the first one's.
    pub(super) fn start(&self, shards: Option<Shards>) -> (WriterPartitions, IngestQueue) {
        // SQLite has one writer whatever the setting says.
        let writers = match self.settings.mode() {
            Mode::Embedded | Mode::Auto => 1,
            Mode::Database | Mode::Full => self.settings.batch.writers,
        };
        let turns = Arc::new(Semaphore::new(writers));
        let Some(shards) = shards else {
            let all: Vec<usize> = (0..writers).collect();
            let (lane, queue) = self.lane(0, &all, &turns);
            return (WriterPartitions::new(lane, Vec::new()), queue);
        };
        let mut partitions = shards.all().map(|shard| self.lane(shard, &[shard], &turns));
        let first = partitions.next();
        let others = partitions.map(|(lane, _)| lane).collect();
        // There is at least one shard; the settings see to it.
        let (first, queue) = first.unwrap_or_else(|| self.lane(0, &[0], &turns));
        (WriterPartitions::new(first, others), queue)
    }

    /// Starts an accumulator with one writer for each of so many sources that keep their order, behind `started`.
    pub(super) fn start_ordered(
        &self,
        started: &WriterPartitions,
        sources: usize,
    ) -> Vec<Mailbox<BatchAccumulator>> {
        let turns = Arc::new(Semaphore::new(sources.max(1)));
        // Behind the numbers of the others, which the metrics tell apart.
        let first = started.all().count().max(self.settings.batch.writers);
        let lanes = (first..first + sources).map(|index| self.lane(index, &[index], &turns).0);
        lanes.collect()
    }

    fn lane(
        &self,
        index: usize,
        writers: &[usize],
        turns: &Arc<Semaphore>,
    ) -> (Mailbox<BatchAccumulator>, IngestQueue) {
        let (starter, settings) = (self.starter, self.settings);
        let (accumulator, accumulator_inbox) =
            starter.mailbox::<BatchAccumulator>("batch_accumulator", index, ACCUMULATOR_MAILBOX);
        let start_writer = |(place, index): (usize, &usize)| {
            let (mailbox, inbox) = starter.mailbox("db_writer", *index, WRITER_MAILBOX);
            let params = DbWriterParams {
                index: place,
                store: Arc::clone(self.store),
                breaker: self.breaker.clone(),
                accumulator: accumulator.sender(),
                turns: Arc::clone(turns),
                retry: self.retry.clone(),
                attempts: settings.retry.clone(),
                ingest_timeout: settings.ingest.timeout,
                write_timeout: settings.store.acquire_timeout
                    + settings.store.statement_timeout
                    + settings.store.write_margin,
                release_after: settings.broker.release_after,
                read_waiters: self.read_waiters.clone(),
                commits: self.commits.clone(),
                metrics: Arc::clone(&starter.metrics),
            };
            starter.start(self.arbiter, inbox, DbWriter::new(params));
            mailbox
        };
        let waiting = WaitingEvents::default();
        let params = batch_accumulator::BatchAccumulatorParams {
            writers: writers.iter().enumerate().map(start_writer).collect(),
            waiting: waiting.clone(),
            read_waiters: self.read_waiters.clone(),
            metrics: Arc::clone(&starter.metrics),
        };
        let actor = BatchAccumulator::new(params, settings.batch.clone());
        starter.start(self.arbiter, accumulator_inbox, actor);
        (accumulator.clone(), IngestQueue::new(waiting, accumulator))
    }
}

//! The lanes into the store and their writers.

use super::starter::Starter;
use crate::actors::batch_accumulator::{self, BatchAccumulator};
use crate::actors::db_writer::{self, DbWriter};
use crate::actors::handoff::{Handoff, WaitingEvents};
use crate::actors::{Lanes, RetrySupervisor};
use crate::broker::Shards;
use crate::config::{Mode, Settings};
use crate::event::Awaited;
use crate::store::EventStore;
use crate::supervision::{Breaker, Mailbox};
use actix_rt::Arbiter;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Messages that may wait for an accumulator. Each is a group of events; the events are bounded
/// by prefetch and the budget of bytes.
const ACCUMULATOR_MAILBOX: usize = 1_024;
/// A writer has one batch at a time; besides it is asked whether it is idle.
const WRITER_MAILBOX: usize = 8;

/// What all writers are wired to.
pub(super) struct Writers<'a> {
    pub(super) starter: &'a Starter,
    pub(super) arbiter: &'a Arbiter,
    pub(super) settings: &'a Settings,
    pub(super) store: &'a Arc<dyn EventStore>,
    pub(super) breaker: &'a Breaker,
    pub(super) retry: &'a Mailbox<RetrySupervisor>,
    pub(super) awaited: &'a Awaited,
}

impl Writers<'_> {
    /// One lane with several writers, or one for each shard with one writer.
    pub(super) fn start(&self, shards: Option<Shards>) -> Lanes {
        // SQLite has one writer whatever one asks for.
        let writers = match self.settings.mode() {
            Mode::Embedded | Mode::Auto => 1,
            Mode::Database | Mode::Full => self.settings.batch.writers,
        };
        let turns = Arc::new(Semaphore::new(writers));
        let Some(shards) = shards else {
            let all: Vec<usize> = (0..writers).collect();
            return Lanes::new(self.lane(0, &all, None, &turns), Vec::new());
        };
        let queue = &self.settings.broker.queue;
        let mut lanes = shards.all().map(|shard| {
            let key = shards.lane_key(queue, shard);
            self.lane(shard, &[shard], Some(key), &turns)
        });
        let first = lanes.next();
        let others = lanes.map(|(lane, _)| lane).collect();
        // There is at least one shard; the settings see to it.
        let first = first.unwrap_or_else(|| self.lane(0, &[0], None, &turns));
        Lanes::new(first, others)
    }

    fn lane(
        &self,
        index: usize,
        writers: &[usize],
        lane: Option<i64>,
        turns: &Arc<Semaphore>,
    ) -> (Mailbox<BatchAccumulator>, Handoff) {
        let (starter, settings) = (self.starter, self.settings);
        let (accumulator, accumulator_inbox) =
            starter.mailbox::<BatchAccumulator>("batch_accumulator", index, ACCUMULATOR_MAILBOX);
        let start_writer = |(place, index): (usize, &usize)| {
            let (mailbox, inbox) = starter.mailbox("db_writer", *index, WRITER_MAILBOX);
            let wiring = db_writer::Wiring {
                index: place,
                store: Arc::clone(self.store),
                breaker: self.breaker.clone(),
                accumulator: accumulator.clone(),
                lane,
                turns: Arc::clone(turns),
                retry: self.retry.clone(),
                attempts: settings.retry.clone(),
                ingest_timeout: settings.ingest.timeout,
                write_timeout: settings.store.acquire_timeout
                    + settings.store.statement_timeout
                    + settings.store.write_margin,
                release_after: settings.broker.release_after,
                awaited: self.awaited.clone(),
                metrics: Arc::clone(&starter.metrics),
            };
            starter.start(self.arbiter, inbox, DbWriter::new(wiring));
            mailbox
        };
        let waiting = WaitingEvents::default();
        let wiring = batch_accumulator::Wiring {
            writers: writers.iter().enumerate().map(start_writer).collect(),
            waiting: waiting.clone(),
            awaited: self.awaited.clone(),
            metrics: Arc::clone(&starter.metrics),
        };
        let actor = BatchAccumulator::new(wiring, settings.batch.clone());
        starter.start(self.arbiter, accumulator_inbox, actor);
        (accumulator.clone(), Handoff::new(waiting, accumulator))
    }
}

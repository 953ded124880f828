//! `BatchAccumulator`: collects events in the open batch and dispatches due batches to idle writers.

use super::db_writer::{AskReady, DbWriter, WriteBatch};
use super::messages::{AccumulatorMessage, Push};
use super::open_batch::OpenBatch;
use super::waiting_events::{ENOUGH, ENOUGH_ALONE, WaitingEvents};
use crate::config::batch::BatchSettings;
use crate::event::read_waiters::ReadWaiters;
use crate::metrics::Metrics;
use crate::supervision::{Mailbox, Tracked, failpoint};
use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle, Supervised};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long few events wait at most for the end of the write under way, if another writer is idle.
const LINGER: Duration = Duration::from_millis(20);

/// What the accumulator works with; unlike its events it survives a restart.
#[derive(Clone)]
pub struct BatchAccumulatorParams {
    /// The writers, by index.
    pub writers: Vec<Mailbox<DbWriter>>,
    /// Events whose callers wait.
    pub waiting: WaitingEvents,
    /// Events that readers wait for.
    pub read_waiters: ReadWaiters,
    pub metrics: Arc<Metrics>,
}

/// Collects events in the open batch and dispatches due batches to idle writers.
pub struct BatchAccumulator {
    params: BatchAccumulatorParams,
    open: OpenBatch,
    /// Indices of idle writers, longest idle first.
    idle: VecDeque<usize>,
    timer: Option<SpawnHandle>,
}

impl BatchAccumulator {
    /// An accumulator with an empty open batch.
    pub fn new(params: BatchAccumulatorParams, settings: BatchSettings) -> Self {
        let open = OpenBatch::new(settings, params.read_waiters.clone());
        Self {
            params,
            open,
            idle: VecDeque::new(),
            timer: None,
        }
    }

    /// Remaining wait of few events whose callers wait: for the end of the write under way, or for
    /// `batch.linger`. `None` means dispatch now.
    fn shares_next_write(&self) -> Option<Duration> {
        let under_way = self.idle.len() < self.params.writers.len();
        let (linger, enough) = if under_way {
            (LINGER, ENOUGH)
        } else {
            (self.open.linger(), ENOUGH_ALONE)
        };
        let (count, age) = self.params.waiting.count_and_age();
        let left = linger.checked_sub(age).filter(|left| !left.is_zero())?;
        let few = count > 0 && count < enough;
        let waits = few && !self.open.is_draining() && self.open.due().is_none();
        waits.then_some(left)
    }

    fn push(&mut self, push: Push) {
        failpoint::hit("batch_accumulator.push");
        for group in push.groups {
            self.open.push_group(group);
        }
        if push.window_spent {
            self.open.window_spent();
        }
    }

    fn writer_ready(&mut self, index: usize, bad_rows: usize) {
        if let Some(limit) = self.open.batch_written(bad_rows) {
            tracing::warn!(
                bad_rows,
                limit,
                "a batch had many bad rows; for a minute batches have at most limit rows"
            );
        }
        // A writer says so again after each restart, its own or the accumulator's.
        if !self.idle.contains(&index) {
            self.idle.push_back(index);
        }
    }

    /// Dispatches due batches to idle writers. Waiting events are taken only when a writer is idle.
    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        while !self.idle.is_empty() && self.shares_next_write().is_none() {
            let waiting = self.params.waiting.take();
            if !waiting.is_empty() {
                failpoint::hit("batch_accumulator.push");
                self.open.push(waiting);
            }
            let Some(trigger) = self.open.due() else {
                break;
            };
            let Some(index) = self.idle.pop_front() else {
                break;
            };
            let Some(writer) = self.params.writers.get(index) else {
                continue;
            };
            let batch = self.open.cut(trigger);
            let metrics = &self.params.metrics;
            metrics
                .batches_flushed
                .with_label_values(&[trigger.as_str()])
                .inc();
            metrics.batch_events.observe(batch.len() as f64);
            failpoint::hit("batch_accumulator.dispatch");
            // An idle writer has room. If it cannot be reached all the same, the batch is dropped
            // here, and with it its tickets: the events return to their source.
            if writer.try_send(WriteBatch(batch)).is_err() {
                tracing::error!(writer = index, "an idle writer did not take its batch");
            }
        }
        self.arm(ctx);
    }

    /// Sets the timer to the moment the oldest event has waited long enough. While no writer is
    /// idle no timer is needed: the next one that becomes idle dispatches.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if self.idle.is_empty() {
            return;
        }
        let left = self.open.time_left().into_iter();
        if let Some(left) = left.chain(self.shares_next_write()).min() {
            // A timer may fire a little early; a millisecond more keeps it from firing twice.
            let left = left + Duration::from_millis(1);
            self.timer = Some(ctx.run_later(left, |accumulator, ctx| {
                accumulator.timer = None;
                failpoint::hit("batch_accumulator.timer");
                accumulator.dispatch(ctx);
            }));
        }
    }
}

impl Actor for BatchAccumulator {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        // Idle writers told the accumulator before this one.
        for writer in &self.params.writers {
            // A full mailbox means the writer has messages to handle, after which it says so itself.
            let _ = writer.try_send(AskReady);
        }
    }
}

impl Supervised for BatchAccumulator {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.open = self.open.emptied();
        self.idle.clear();
        self.timer = None;
    }
}

impl Handler<Tracked<AccumulatorMessage>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<AccumulatorMessage>, ctx: &mut Self::Context) {
        let (message, _handling) = message.open();
        match message {
            AccumulatorMessage::Push(push) => self.push(push),
            AccumulatorMessage::WriterReady { index, bad_rows } => {
                self.writer_ready(index, bad_rows);
            }
            AccumulatorMessage::Reconfigure(settings) => self.open.reconfigure(settings),
            AccumulatorMessage::Drain => self.open.drain(),
            AccumulatorMessage::Flush => self.open.flush(),
            AccumulatorMessage::Discard => self.open.drop_closed(),
            AccumulatorMessage::Nudge => {}
        }
        self.dispatch(ctx);
    }
}

//! `DbWriter`: takes one batch at a time to the store (`writing.rs`), and asks for the next.

use super::batch_accumulator::{BatchAccumulator, WriterReady};
use super::retry_supervisor::RetrySupervisor;
use super::writing::Writing;
use crate::config::retry::RetrySettings;
use crate::event::{Awaited, Batch};
use crate::metrics::Metrics;
use crate::store::EventStore;
use crate::supervision::{ActorMessage, Breaker, Handling, Mailbox, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a writer is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Which writer of the pool this is.
    pub index: usize,
    /// Where the rows go.
    pub store: Arc<dyn EventStore>,
    /// Whether the store is there.
    pub breaker: Breaker,
    /// Whom it asks for work.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// The lane whose order it keeps, if it keeps one.
    pub lane: Option<i64>,
    /// Bounds the writes at one time, over all writers.
    pub turns: Arc<Semaphore>,
    /// Who takes what failed.
    pub retry: Mailbox<RetrySupervisor>,
    /// How often an event may fail.
    pub attempts: RetrySettings,
    /// How long callers wait.
    pub ingest_timeout: Duration,
    /// How long one write may take.
    pub write_timeout: Duration,
    /// The store away for so long, events return to the broker.
    pub release_after: Duration,
    /// Readers to wake.
    pub awaited: Awaited,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct DbWriter {
    wiring: Wiring,
    busy: bool,
    /// Batches that came while it was busy. An accumulator that was restarted has every idle writer
    /// ask, also one that had asked already: then it is given two.
    waiting: VecDeque<(Batch, Handling)>,
}

/// A batch to write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteBatch(pub Batch);

/// The accumulator has forgotten who is idle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskReady;

impl ActorMessage for WriteBatch {
    const NAME: &'static str = "write_batch";
}
impl ActorMessage for AskReady {
    const NAME: &'static str = "ask_ready";
}

impl DbWriter {
    /// An idle writer.
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            busy: false,
            waiting: VecDeque::new(),
        }
    }

    /// Writes a batch, then those that wait behind it, and asks for more when there are none. Never
    /// two at once: the later one could overtake, and within a lane nothing may.
    fn write(&mut self, batch: Batch, handling: Handling, ctx: &mut Context<Self>) {
        self.busy = true;
        let wiring = self.wiring.clone();
        ctx.spawn(
            async move {
                let _handling = handling;
                Writing::new(wiring, batch).run().await;
            }
            .into_actor(self)
            .map(|(), writer, ctx| match writer.waiting.pop_front() {
                Some((batch, handling)) => writer.write(batch, handling, ctx),
                None => {
                    writer.busy = false;
                    writer.ask(ctx);
                }
            }),
        );
    }

    /// Asks for work, waiting for room in the accumulator's mailbox if need be: a request that got
    /// lost would idle this writer for good. While the store is away it does not ask, so that the
    /// demand stops at the source.
    fn ask(&self, ctx: &mut Context<Self>) {
        let accumulator = self.wiring.accumulator.clone();
        let breaker = self.wiring.breaker.clone();
        let index = self.wiring.index;
        ctx.spawn(
            async move {
                breaker.closed().await;
                while accumulator.send(WriterReady(index)).await.is_err() {
                    // The accumulator crashed over this very message; it will be back.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            .into_actor(self),
        );
    }
}

impl Actor for DbWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
    }
}

impl Supervised for DbWriter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.busy = false;
        // Dropped with their tickets: these events return, as those of the batch in hand do.
        self.waiting.clear();
    }
}

impl Handler<Tracked<AskReady>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<AskReady>, ctx: &mut Self::Context) {
        let _handling = message.open();
        if !self.busy {
            self.ask(ctx);
        }
    }
}

impl Handler<Tracked<WriteBatch>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<WriteBatch>, ctx: &mut Self::Context) {
        let Some((WriteBatch(batch), handling)) = message.open() else {
            return;
        };
        failpoint::hit("db_writer.write_batch");
        if self.busy {
            self.waiting.push_back((batch, handling));
        } else {
            self.write(batch, handling, ctx);
        }
    }
}

#[cfg(test)]
mod tests;

//! `DbWriter`: takes one batch at a time to the store (`writing.rs`), and asks for the next.

use super::batch_accumulator::{BatchAccumulator, WriterReady};
use super::retry_supervisor::RetrySupervisor;
use super::writing::Writing;
use crate::config::retry::RetrySettings;
use crate::event::{Awaited, Batch};
use crate::metrics::Metrics;
use crate::store::EventStore;
use crate::supervision::{ActorMessage, Breaker, Mailbox, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use std::sync::Arc;
use std::time::Duration;

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
        }
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
        self.busy = true;
        let wiring = self.wiring.clone();
        ctx.spawn(
            async move {
                let _handling = handling;
                Writing::new(wiring, batch).run().await;
            }
            .into_actor(self)
            .map(|(), writer, ctx| {
                writer.busy = false;
                writer.ask(ctx);
            }),
        );
    }
}

//! `BatchAccumulator`: the keeper of the lock's gate. Events gather in the open batch; when it is
//! due, the gate opens for the next writer that asks.

use super::db_writer::{AskReady, DbWriter, WriteBatch};
use super::handoff::{ENOUGH, ENOUGH_ALONE, WaitingEvents};
use super::open_batch::OpenBatch;
use crate::config::batch::BatchSettings;
use crate::event::{Awaited, Delivery};
use crate::metrics::Metrics;
use crate::supervision::{ActorMessage, Mailbox, Tracked, failpoint};
use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long a few events wait at most for a write that is under way to end, if another writer is idle.
const LINGER: Duration = Duration::from_millis(20);

/// What the accumulator is wired to; it survives a restart, the events do not.
#[derive(Clone)]
pub struct Wiring {
    /// The writers, by index.
    pub writers: Vec<Mailbox<DbWriter>>,
    /// What the doors bring.
    pub waiting: WaitingEvents,
    /// Events that readers wait for.
    pub awaited: Awaited,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct BatchAccumulator {
    wiring: Wiring,
    open: OpenBatch,
    /// Indices of writers that have asked, in the order in which they did.
    idle: VecDeque<usize>,
    timer: Option<SpawnHandle>,
}

/// Events for the open batch.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Push(pub Vec<Delivery>);

/// Groups of events that go each in a batch of its own, before all others.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PushAlone(pub Vec<Vec<Delivery>>);

/// Events in their order, in groups; a group may have to go alone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PushInLine(pub Vec<Group>);

/// Events of [`PushInLine`].
pub struct Group {
    /// They go in a batch of their own, in their turn.
    pub alone: bool,
    /// The events.
    pub deliveries: Vec<Delivery>,
}

/// A writer has nothing to do.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriterReady(pub usize);

/// New bounds; the open batch stays.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub BatchSettings);

/// From now on nothing waits: what is here goes out, what comes goes out at once.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// What is here goes out; what comes later gathers as before.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Flush;

/// What is here returns to its source: the store has been away for long, and the broker will not
/// wait for acknowledgements for ever.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Discard;

/// A door has brought something while a writer was idle, or a reader has begun to wait for an event
/// that may be in the open batch.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Nudge;

impl ActorMessage for Push {
    const NAME: &'static str = "push";
}
impl ActorMessage for PushAlone {
    const NAME: &'static str = "push_alone";
}
impl ActorMessage for PushInLine {
    const NAME: &'static str = "push_in_line";
}
impl ActorMessage for WriterReady {
    const NAME: &'static str = "writer_ready";
}
impl ActorMessage for Reconfigure {
    const NAME: &'static str = "reconfigure";
}
impl ActorMessage for Drain {
    const NAME: &'static str = "drain";
}
impl ActorMessage for Flush {
    const NAME: &'static str = "flush";
}
impl ActorMessage for Discard {
    const NAME: &'static str = "discard";
}
impl ActorMessage for Nudge {
    const NAME: &'static str = "nudge";
}

impl BatchAccumulator {
    /// An accumulator with nothing in it.
    pub fn new(wiring: Wiring, settings: BatchSettings) -> Self {
        let open = OpenBatch::new(settings, wiring.awaited.clone());
        Self {
            wiring,
            open,
            idle: VecDeque::new(),
            timer: None,
        }
    }

    /// How much longer what the doors bring, and little of it, waits to share a write: the one that
    /// follows the write under way, or, with a linger, one with what comes soon. `None` when it does
    /// not wait.
    fn shares_next_write(&self) -> Option<Duration> {
        let under_way = self.idle.len() < self.wiring.writers.len();
        let (linger, enough) = if under_way {
            (LINGER, ENOUGH)
        } else {
            (self.open.linger(), ENOUGH_ALONE)
        };
        let (count, age) = self.wiring.waiting.look();
        let left = linger.checked_sub(age).filter(|left| !left.is_zero())?;
        let few = count > 0 && count < enough;
        let waits = few && !self.open.is_draining() && self.open.due().is_none();
        waits.then_some(left)
    }

    /// Hands batches to writers for as long as there are both. What the doors bring is taken only
    /// when there is a writer for it.
    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        while !self.idle.is_empty() && self.shares_next_write().is_none() {
            let brought = self.wiring.waiting.take();
            if !brought.is_empty() {
                failpoint::hit("batch_accumulator.push");
                self.open.push(brought);
            }
            let Some(trigger) = self.open.due() else {
                break;
            };
            let Some(index) = self.idle.pop_front() else {
                break;
            };
            let Some(writer) = self.wiring.writers.get(index) else {
                continue;
            };
            let batch = self.open.cut(trigger);
            let metrics = &self.wiring.metrics;
            metrics
                .batches_flushed
                .with_label_values(&[trigger.as_str()])
                .inc();
            metrics.batch_events.observe(batch.len() as f64);
            failpoint::hit("batch_accumulator.dispatch");
            // A writer that asked has room. If it cannot be reached all the same, the batch is
            // dropped here, and with it its tickets: the events return to their source.
            if writer.try_send(WriteBatch(batch)).is_err() {
                tracing::error!(
                    writer = index,
                    "a writer that asked for work did not take it"
                );
            }
        }
        self.arm(ctx);
    }

    /// Sets the timer to the moment the oldest event has waited long enough. While no writer is
    /// idle there is nothing to wake up for: the next one that asks looks by itself.
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
        // Writers that asked the accumulator before this one must ask again.
        for writer in &self.wiring.writers {
            // A full mailbox means the writer has messages to work through, after which it asks.
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

impl Handler<Tracked<Push>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Push>, ctx: &mut Self::Context) {
        let Some((Push(deliveries), _handling)) = message.open() else {
            return;
        };
        failpoint::hit("batch_accumulator.push");
        self.open.push(deliveries);
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<PushAlone>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<PushAlone>, ctx: &mut Self::Context) {
        let Some((PushAlone(groups), _handling)) = message.open() else {
            return;
        };
        for group in groups {
            self.open.push_alone(group);
        }
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<PushInLine>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<PushInLine>, ctx: &mut Self::Context) {
        let Some((PushInLine(groups), _handling)) = message.open() else {
            return;
        };
        failpoint::hit("batch_accumulator.push");
        for group in groups {
            if group.alone {
                self.open.push_alone_in_line(group.deliveries);
            } else {
                self.open.push(group.deliveries);
            }
        }
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<WriterReady>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<WriterReady>, ctx: &mut Self::Context) {
        let Some((WriterReady(index), _handling)) = message.open() else {
            return;
        };
        // A writer asks again after each restart, its own or ours.
        if !self.idle.contains(&index) {
            self.idle.push_back(index);
        }
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Reconfigure>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Reconfigure>, ctx: &mut Self::Context) {
        let Some((Reconfigure(settings), _handling)) = message.open() else {
            return;
        };
        self.open.reconfigure(settings);
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Drain>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Drain>, ctx: &mut Self::Context) {
        let _handling = message.open();
        self.open.drain();
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Flush>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Flush>, ctx: &mut Self::Context) {
        let _handling = message.open();
        self.open.flush();
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Discard>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Discard>, _: &mut Self::Context) {
        let _handling = message.open();
        self.open = self.open.emptied();
        drop(self.wiring.waiting.take());
    }
}

impl Handler<Tracked<Nudge>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Nudge>, ctx: &mut Self::Context) {
        let _handling = message.open();
        self.dispatch(ctx);
    }
}

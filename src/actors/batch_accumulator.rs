//! `BatchAccumulator`: the chamber of the lock. Events gather; when there are enough, or the oldest
//! has waited long enough, the gate opens for the next writer that asks.

use super::db_writer::{AskReady, DbWriter, WriteBatch};
use crate::config::batch::BatchSettings;
use crate::event::{Awaited, Batch, Delivery, Trigger};
use crate::metrics::Metrics;
use crate::supervision::{ActorMessage, Mailbox, Tracked, failpoint};
use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the accumulator is wired to; it survives a restart, the events do not.
#[derive(Clone)]
pub struct Wiring {
    /// The writers, by index.
    pub writers: Vec<Mailbox<DbWriter>>,
    /// Whether every event has somebody waiting for it, so that a batch leaves as soon as a writer
    /// is idle (direct mode).
    pub eager: bool,
    /// Events that readers wait for.
    pub awaited: Awaited,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

struct Pending {
    delivery: Delivery,
    since: Instant,
    weight: usize,
}

/// The actor.
pub struct BatchAccumulator {
    wiring: Wiring,
    settings: BatchSettings,
    pending: VecDeque<Pending>,
    bytes: usize,
    /// Indices of writers that have asked, in the order in which they did.
    idle: VecDeque<usize>,
    draining: bool,
    timer: Option<SpawnHandle>,
}

/// Events for the open batch.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Push(pub Vec<Delivery>);

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

/// A reader has begun to wait for an event that may be in the open batch.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Nudge;

impl ActorMessage for Push {
    const NAME: &'static str = "push";
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
impl ActorMessage for Nudge {
    const NAME: &'static str = "nudge";
}

impl BatchAccumulator {
    /// An accumulator with nothing in it.
    pub fn new(wiring: Wiring, settings: BatchSettings) -> Self {
        Self {
            wiring,
            settings,
            pending: VecDeque::new(),
            bytes: 0,
            idle: VecDeque::new(),
            draining: false,
            timer: None,
        }
    }

    /// Why a batch should leave now, if it should.
    fn due(&self) -> Option<Trigger> {
        let oldest = self.pending.front()?;
        if self.pending.len() >= self.settings.max_events {
            return Some(Trigger::Size);
        }
        if self.bytes >= max_bytes(&self.settings) {
            return Some(Trigger::Bytes);
        }
        if self.draining {
            return Some(Trigger::Drain);
        }
        if oldest.since.elapsed() >= self.settings.max_wait {
            return Some(Trigger::Time);
        }
        if self.wiring.eager || self.holds_awaited() {
            return Some(Trigger::Idle);
        }
        None
    }

    fn holds_awaited(&self) -> bool {
        !self.wiring.awaited.is_empty()
            && self
                .pending
                .iter()
                .any(|p| self.wiring.awaited.contains(&p.delivery.event.event_id))
    }

    /// The front of what is pending, within the bounds of a batch.
    fn cut(&mut self, trigger: Trigger) -> Batch {
        let mut bytes = 0;
        let mut events = 0;
        for pending in self.pending.iter().take(self.settings.max_events) {
            if events > 0 && bytes + pending.weight > max_bytes(&self.settings) {
                break;
            }
            bytes += pending.weight;
            events += 1;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        Batch::new(self.pending.drain(..events).map(|p| p.delivery), trigger)
    }

    /// Hands batches to writers for as long as there are both.
    fn dispatch(&mut self, ctx: &mut Context<Self>) {
        while !self.idle.is_empty() {
            let Some(trigger) = self.due() else { break };
            let Some(index) = self.idle.pop_front() else {
                break;
            };
            let Some(writer) = self.wiring.writers.get(index).cloned() else {
                continue;
            };
            let batch = self.cut(trigger);
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
        if let Some(oldest) = self.pending.front() {
            let left = self
                .settings
                .max_wait
                .saturating_sub(oldest.since.elapsed());
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

fn max_bytes(settings: &BatchSettings) -> usize {
    usize::try_from(settings.max_bytes.as_u64()).unwrap_or(usize::MAX)
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
        let draining = self.draining;
        *self = Self::new(self.wiring.clone(), self.settings.clone());
        self.draining = draining;
    }
}

impl Handler<Tracked<Push>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Push>, ctx: &mut Self::Context) {
        let Some((Push(deliveries), _handling)) = message.open() else {
            return;
        };
        failpoint::hit("batch_accumulator.push");
        let since = Instant::now();
        let was_empty = self.pending.is_empty();
        for delivery in deliveries {
            let weight = delivery.event.weight();
            self.bytes += weight;
            self.pending.push_back(Pending {
                delivery,
                since,
                weight,
            });
        }
        if self.due().is_some() || was_empty {
            self.dispatch(ctx);
        }
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
        self.settings = settings;
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Drain>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Drain>, ctx: &mut Self::Context) {
        let _handling = message.open();
        self.draining = true;
        self.dispatch(ctx);
    }
}

impl Handler<Tracked<Nudge>> for BatchAccumulator {
    type Result = ();

    fn handle(&mut self, message: Tracked<Nudge>, ctx: &mut Self::Context) {
        let _handling = message.open();
        self.dispatch(ctx);
    }
}

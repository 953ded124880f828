//! A batch: events that are written in one transaction.

use super::{Delivery, Event, Ticket};
use std::ops::{Deref, Range};
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// Why a batch was dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// It reached `batch.max_events`.
    Size,
    /// It reached `batch.max_bytes`.
    Bytes,
    /// Its oldest event waited `batch.max_wait`.
    Time,
    /// Its source delivers no more before events of it are settled.
    Window,
    /// A caller or reader waits for it and a writer was idle.
    Idle,
    /// The process is stopping.
    Drain,
    /// Its events are written alone, because they were in flight during an unclean end.
    Alone,
}

impl Trigger {
    pub const ALL: [Trigger; 7] = [
        Trigger::Size,
        Trigger::Bytes,
        Trigger::Time,
        Trigger::Window,
        Trigger::Idle,
        Trigger::Drain,
        Trigger::Alone,
    ];

    /// The word in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Size => "size",
            Trigger::Bytes => "bytes",
            Trigger::Time => "time",
            Trigger::Window => "window",
            Trigger::Idle => "idle",
            Trigger::Drain => "drain",
            Trigger::Alone => "alone",
        }
    }
}

/// Everything that a batch keeps of a delivery besides the event.
#[derive(Debug)]
pub struct PendingAck {
    /// Reports the outcome to the source.
    pub ticket: Ticket,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The dead letter that a replay sent.
    pub letter: Option<Uuid>,
    pub span: Span,
}

/// Events that are written in one transaction, and their tickets, in the same order.
///
/// The events are shared with the store's thread or task; the tickets stay with the actor that holds
/// the batch, so dropping the batch returns all its events.
#[derive(Debug)]
pub struct Batch {
    /// The events, in order of arrival.
    pub events: Arc<Vec<Event>>,
    /// Their tickets, index by index.
    pub acks: Vec<PendingAck>,
    /// Why the batch was dispatched.
    pub trigger: Trigger,
}

impl Batch {
    /// Packs deliveries into a batch.
    pub fn new(deliveries: impl IntoIterator<Item = Delivery>, trigger: Trigger) -> Self {
        let (events, acks): (Vec<_>, Vec<_>) = deliveries
            .into_iter()
            .map(|delivery| {
                let Delivery {
                    event,
                    ticket,
                    attempts,
                    letter,
                    span,
                } = delivery;
                (
                    event,
                    PendingAck {
                        ticket,
                        attempts,
                        letter,
                        span,
                    },
                )
            })
            .unzip();
        Self {
            events: Arc::new(events),
            acks,
            trigger,
        }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the batch has no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// A contiguous part of a batch's events, cheap to clone and to send to another thread: the whole
/// batch, or a part of it during bisection.
#[derive(Debug, Clone)]
pub struct Rows {
    events: Arc<Vec<Event>>,
    range: Range<usize>,
}

impl Rows {
    /// All events of a batch.
    pub fn all(events: Arc<Vec<Event>>) -> Self {
        let range = 0..events.len();
        Self { events, range }
    }

    /// The two halves; `None` for a single row.
    pub fn halves(&self) -> Option<(Rows, Rows)> {
        if self.range.len() < 2 {
            return None;
        }
        let middle = self.range.start + self.range.len() / 2;
        let part = |range| Rows {
            events: Arc::clone(&self.events),
            range,
        };
        Some((part(self.range.start..middle), part(middle..self.range.end)))
    }

    /// Index of the first row in the batch.
    pub fn start(&self) -> usize {
        self.range.start
    }
}

impl Deref for Rows {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        self.events.get(self.range.clone()).unwrap_or_default()
    }
}

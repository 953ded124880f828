//! What leaves the chamber when the gate opens.

use super::{Delivery, Event, Ticket};
use std::ops::{Deref, Range};
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// Why a batch left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// It had `batch.max_events`.
    Size,
    /// It had `batch.max_bytes`.
    Bytes,
    /// Its oldest event had waited `batch.max_wait`.
    Time,
    /// Somebody waits for it and a writer was idle.
    Idle,
    /// The process is stopping.
    Drain,
    /// Its events go alone, since they were in hand when something ended uncleanly.
    Alone,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Trigger; 6] = [
        Trigger::Size,
        Trigger::Bytes,
        Trigger::Time,
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
            Trigger::Idle => "idle",
            Trigger::Drain => "drain",
            Trigger::Alone => "alone",
        }
    }
}

/// What a batch remembers of each event beside the event: who is to hear, and how often it failed.
#[derive(Debug)]
pub struct Claim {
    /// Who is to hear what became of the event.
    pub ticket: Ticket,
    /// How often it has failed so far.
    pub attempts: u32,
    /// The dead letter that it was, if it comes from a replay.
    pub letter: Option<Uuid>,
    /// The event's span.
    pub span: Span,
}

/// Events that are written in one transaction, and their tickets, in the same order.
///
/// The events are shared with the store's own thread or task; the tickets never leave the actor
/// that holds the batch, so dropping the batch returns every event in it.
#[derive(Debug)]
pub struct Batch {
    /// The events, in order of arrival.
    pub events: Arc<Vec<Event>>,
    /// Their tickets, index by index.
    pub claims: Vec<Claim>,
    /// Why it left.
    pub trigger: Trigger,
}

impl Batch {
    /// Packs deliveries into a batch.
    pub fn new(deliveries: impl IntoIterator<Item = Delivery>, trigger: Trigger) -> Self {
        let (events, claims): (Vec<_>, Vec<_>) = deliveries
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
                    Claim {
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
            claims,
            trigger,
        }
    }

    /// How many events are in it.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// A run of a batch's events, cheap to clone and to send to another thread: the whole batch, or a
/// part of it while a bad row is being looked for.
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

    /// The two halves of this run; `None` when a single row is left.
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

    /// Where in the batch this run begins.
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

//! Ownership as acknowledgement: an event and the ticket that answers for it.

use super::{Event, Outcome};
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// Whoever handed in an event and waits to hear what became of it: an HTTP request, a channel of
/// the broker, an import.
pub trait Origin: Send + Sync {
    /// Takes the one answer for the event in `slot`. Called from `Drop` too, also while a panic
    /// unwinds: it must not block for long and must not panic.
    fn settle(&self, slot: u64, outcome: Outcome);

    /// Whether somebody waits for the answer, or the event rests in a queue that keeps it.
    fn patience(&self) -> Patience;

    /// Whether the event may still be written. Not when it will come again in its order, and
    /// writing it now could let it overtake others.
    fn is_open(&self) -> bool {
        true
    }
}

/// What an event's source can do when the event cannot be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A caller waits, and can be told to come back.
    Caller,
    /// The broker keeps the event for as long as it takes.
    Queue,
}

/// The right, and the duty, to say once what became of one event.
///
/// A ticket that is dropped unsettled (its actor crashed, its batch was thrown away) answers
/// [`Outcome::Returned`] by itself, so nobody writes clean-up code for a crash.
pub struct Ticket {
    origin: Option<Arc<dyn Origin>>,
    slot: u64,
}

impl Ticket {
    /// A ticket for the event that `origin` knows as `slot`.
    pub fn new(origin: Arc<dyn Origin>, slot: u64) -> Self {
        Self {
            origin: Some(origin),
            slot,
        }
    }

    /// What its source can do when the event cannot be written now.
    pub fn patience(&self) -> Patience {
        self.origin
            .as_ref()
            .map_or(Patience::Caller, |origin| origin.patience())
    }

    /// Whether the event may still be written; see [`Origin::is_open`].
    pub fn is_open(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.is_open())
    }

    /// Says what became of the event. Takes the ticket, so there is no second time.
    pub fn settle(mut self, outcome: Outcome) {
        if let Some(origin) = self.origin.take() {
            origin.settle(self.slot, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            origin.settle(self.slot, Outcome::Returned);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("slot", &self.slot).finish()
    }
}

/// An event on its way, with its ticket.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// Who is to hear what became of it.
    pub ticket: Ticket,
    /// How often it has failed so far.
    pub attempts: u32,
    /// The dead letter that it was, if it comes from a replay: if it fails again it is buried under
    /// the same id, so that the letter keeps its history.
    pub letter: Option<Uuid>,
    /// Carries the event's id from socket to row in the logs; disabled, and free, unless debug
    /// logs are on.
    pub span: Span,
}

impl Delivery {
    /// A first delivery, with a span of its own.
    pub fn new(event: Event, ticket: Ticket) -> Self {
        let span = tracing::debug_span!("event", event_id = %event.event_id);
        Self {
            event,
            ticket,
            attempts: 0,
            letter: None,
            span,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u64, Outcome)>>);

    impl Origin for Heard {
        fn settle(&self, slot: u64, outcome: Outcome) {
            self.0.lock().unwrap().push((slot, outcome));
        }

        fn patience(&self) -> Patience {
            Patience::Caller
        }
    }

    #[test]
    fn a_settled_ticket_answers_once() {
        let heard = Arc::new(Heard::default());
        Ticket::new(heard.clone(), 7).settle(Outcome::Stored);
        assert_eq!(*heard.0.lock().unwrap(), vec![(7, Outcome::Stored)]);
    }

    #[test]
    fn a_dropped_ticket_returns_its_event_also_through_a_panic() {
        let heard = Arc::new(Heard::default());
        let ticket = Ticket::new(heard.clone(), 3);
        let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = ticket;
            panic!("the actor that held it");
        }));
        assert!(crash.is_err());
        assert_eq!(*heard.0.lock().unwrap(), vec![(3, Outcome::Returned)]);
    }
}

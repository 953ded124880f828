//! Deliveries: an event and the ticket that acknowledges it.

use super::{Event, Lane, Outcome};
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// The source of an event, which receives its outcome: an HTTP request, a channel of the broker, an
/// import.
pub trait Origin: Send + Sync {
    /// Receives the outcome of the event in `slot`, exactly once. `Drop` calls it too, also during a
    /// panic: it must not block for long and must not panic.
    fn settle(&self, slot: u64, outcome: Outcome);

    /// Whether a caller waits for the outcome or a queue keeps the event.
    fn caller_mode(&self) -> CallerMode;

    /// Whether the event may still be written. False when it will be delivered again, so that
    /// writing it now could store it twice or out of order.
    fn is_open(&self) -> bool {
        true
    }

    /// The lane of the event, if it keeps an order.
    fn lane(&self) -> Option<&Lane> {
        None
    }
}

/// What the source of an event can do while the event cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerMode {
    /// A caller waits and can be asked to retry.
    Caller,
    /// The broker keeps the event.
    Queue,
}

/// The obligation to report the outcome of one event exactly once.
///
/// A ticket that is dropped unsettled (its actor crashed, its batch was discarded) reports
/// [`Outcome::Returned`], so a crash needs no clean-up code.
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

    /// The caller mode of the source; see [`Origin::caller_mode`].
    pub fn caller_mode(&self) -> CallerMode {
        self.origin
            .as_ref()
            .map_or(CallerMode::Caller, |origin| origin.caller_mode())
    }

    /// Whether the event may still be written; see [`Origin::is_open`].
    pub fn is_open(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.is_open())
    }

    /// The lane of the event; see [`Origin::lane`].
    pub fn lane(&self) -> Option<&Lane> {
        self.origin.as_ref().and_then(|origin| origin.lane())
    }

    /// Reports the outcome. Consumes the ticket, so it cannot happen twice.
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

/// An event in flight and its ticket.
#[derive(Debug)]
pub struct Delivery {
    pub event: Event,
    /// Reports the outcome to the source.
    pub ticket: Ticket,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The dead letter that a replay sent: a new failure updates the same dead letter, which keeps
    /// its history.
    pub letter: Option<Uuid>,
    /// Carries the event's id through the logs; disabled unless debug logs are on.
    pub span: Span,
}

impl Delivery {
    /// A first delivery with a new span.
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
    struct Recorded(Mutex<Vec<(u64, Outcome)>>);

    impl Origin for Recorded {
        fn settle(&self, slot: u64, outcome: Outcome) {
            self.0.lock().unwrap().push((slot, outcome));
        }

        fn caller_mode(&self) -> CallerMode {
            CallerMode::Caller
        }
    }

    #[test]
    fn a_settled_ticket_answers_once() {
        let recorded = Arc::new(Recorded::default());
        Ticket::new(recorded.clone(), 7).settle(Outcome::Stored);
        assert_eq!(*recorded.0.lock().unwrap(), vec![(7, Outcome::Stored)]);
    }

    #[test]
    fn a_dropped_ticket_returns_its_event_also_through_a_panic() {
        let recorded = Arc::new(Recorded::default());
        let ticket = Ticket::new(recorded.clone(), 3);
        let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = ticket;
            panic!("the actor that held it");
        }));
        assert!(crash.is_err());
        assert_eq!(*recorded.0.lock().unwrap(), vec![(3, Outcome::Returned)]);
    }
}

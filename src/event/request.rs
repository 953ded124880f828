//! A caller that waits until all events it handed in are settled: an HTTP request, or a chunk of an
//! import.

use super::outcome::Refusal;
use super::{Delivery, Event, Origin, Outcome, Patience, Ticket};
use crate::metrics::Ledger;
use crate::supervision::Permit;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

struct Request {
    accounts: Ledger,
    state: Mutex<State>,
}

struct State {
    outcomes: Vec<Outcome>,
    open: usize,
    answer: Option<oneshot::Sender<Vec<Outcome>>>,
    permit: Option<Permit>,
}

/// Takes the events into the ledger; from here on each is accounted for. The outcomes come through
/// the receiver when the last event is settled, in the order of the events.
pub fn open(
    events: Vec<Event>,
    accounts: Ledger,
    permit: Permit,
) -> (Vec<Delivery>, oneshot::Receiver<Vec<Outcome>>) {
    let (answer, receiver) = oneshot::channel();
    accounts.take(events.len());
    let request = Arc::new(Request {
        accounts,
        state: Mutex::new(State {
            outcomes: vec![Outcome::Returned; events.len()],
            open: events.len(),
            answer: Some(answer),
            permit: Some(permit),
        }),
    });
    let deliveries = events
        .into_iter()
        .enumerate()
        .map(|(slot, event)| Delivery::new(event, Ticket::new(request.clone(), slot as u64)))
        .collect();
    (deliveries, receiver)
}

impl Origin for Request {
    fn settle(&self, slot: u64, outcome: Outcome) {
        // What is returned to a caller is refused: the caller is told to come back.
        self.accounts.settle(match outcome {
            Outcome::Returned => Outcome::Refused(Refusal::Unavailable),
            other => other,
        });
        let mut state = self.state.lock();
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        if let Some(entry) = state.outcomes.get_mut(slot) {
            *entry = outcome;
        }
        state.open = state.open.saturating_sub(1);
        if state.open == 0 {
            state.permit = None;
            let outcomes = std::mem::take(&mut state.outcomes);
            if let Some(answer) = state.answer.take() {
                // The caller may have gone; the events are settled all the same.
                let _ = answer.send(outcomes);
            }
        }
    }

    fn patience(&self) -> Patience {
        Patience::Caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Source, id, item};
    use crate::supervision::Budget;
    use prometheus::IntGauge;
    use serde_json::value::RawValue;

    fn event() -> Event {
        Event {
            event_id: id::fresh(),
            original_id: None,
            producer: "p".into(),
            user_id: None,
            event_type: "t".to_owned(),
            event_data: RawValue::from_string("{}".to_owned()).unwrap(),
            session_id: None,
            timestamp: None,
            received_at: item::now(),
            source: Source::Http,
        }
    }

    #[test]
    fn the_answer_comes_with_the_last_event_and_frees_the_bytes() {
        let budget = Budget::new(10, IntGauge::new("bytes", "in use").unwrap());
        let ledger = Ledger::default();
        let permit = budget.try_take(10).unwrap();
        let (deliveries, mut answer) = open(vec![event(), event()], ledger.clone(), permit);
        let mut deliveries = deliveries.into_iter();
        drop(deliveries.next());
        assert!(answer.try_recv().is_err());
        assert!(budget.try_take(1).is_none());
        deliveries.next().unwrap().ticket.settle(Outcome::Stored);
        assert_eq!(
            answer.try_recv().unwrap(),
            [Outcome::Returned, Outcome::Stored]
        );
        assert!(budget.try_take(10).is_some());
        assert_eq!(ledger.in_flight(), 0);
    }
}

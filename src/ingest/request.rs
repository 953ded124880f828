//! A caller that waits until all events it handed in are settled: an HTTP request, or a chunk of an
//! import.

use super::completions::Completions;
use crate::event::budget::Permit;
use crate::event::{CallerMode, Delivery, Event, Origin, Outcome, Ticket};
use crate::metrics::accounting::EventAccounting;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

struct Request {
    accounts: EventAccounting,
    /// By way of these, if the caller's thread hands out its answers itself.
    completions: Option<Completions>,
    state: Mutex<RequestState>,
}

struct RequestState {
    outcomes: Vec<Outcome>,
    open: usize,
    answer: Option<oneshot::Sender<Vec<Outcome>>>,
    permit: Option<Permit>,
}

/// Accounts for the events from here on. The outcomes come through
/// the receiver when the last event is settled, in the order of the events: by way of `completions`
/// if the thread that waits has them.
pub fn open(
    events: Vec<Event>,
    accounts: EventAccounting,
    permit: Permit,
    completions: Option<Completions>,
) -> (Vec<Delivery>, oneshot::Receiver<Vec<Outcome>>) {
    let (answer, receiver) = oneshot::channel();
    accounts.take(events.len());
    let request = Arc::new(Request {
        accounts,
        completions,
        state: Mutex::new(RequestState {
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
            Outcome::Returned => Outcome::Refused,
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
            match (state.answer.take(), &self.completions) {
                (Some(answer), Some(completions)) => completions.push(answer, outcomes),
                (Some(answer), None) => {
                    // The caller may have gone; the events are settled all the same.
                    let _ = answer.send(outcomes);
                }
                (None, _) => {}
            }
        }
    }

    fn caller_mode(&self) -> CallerMode {
        CallerMode::Caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::budget::Budget;
    use crate::event::fixture::event;

    #[test]
    fn the_answer_comes_with_the_last_event_and_frees_the_bytes() {
        let budget = Budget::new(10);
        let account = EventAccounting::default();
        let permit = budget.try_take(10).unwrap();
        let (deliveries, mut answer) = open(vec![event(), event()], account.clone(), permit, None);
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
        assert_eq!(account.in_flight(), 0);
    }
}

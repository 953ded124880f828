//! What a channel has been delivered and not yet acknowledged.
//!
//! Settlements arrive here straight from the tickets, in any order and from any thread, and never
//! through a mailbox that could be full. The channel's acknowledger takes them out in order: one
//! multiple acknowledgement for the longest run of settled messages, a requeue for each returned
//! one. Prefetch bounds the ledger. When the channel is gone its ledger goes with it: late tickets
//! settle into a ledger that nobody reads, and the broker delivers those messages again.

use crate::event::{Origin, Outcome, Patience};
use crate::metrics::Ledger;
use crate::supervision::Permit;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

struct Slot {
    /// Tickets of this message that are still out.
    open: usize,
    /// One of them was returned, so the whole message must come back.
    returned: bool,
    /// The message's bytes in the budget.
    permit: Permit,
}

#[derive(Default)]
struct Slots {
    /// Delivery tag of the first slot. Tags of a channel count from 1 without gaps.
    first: u64,
    /// Taken out as settled, and not yet told to the broker.
    telling: usize,
    /// Bytes of all slots.
    bytes: usize,
    slots: VecDeque<Slot>,
}

/// The ledger of one channel.
pub struct ChannelLedger {
    accounts: Ledger,
    slots: Mutex<Slots>,
    settled: Notify,
    /// Messages of this channel are written in their order, or not at all.
    ordered: bool,
    /// The order ends here: something came back, or the channel is given up.
    closed: AtomicBool,
}

/// What to tell the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// All messages up to this tag are settled.
    UpTo(u64),
    /// This message must come back.
    Requeue(u64),
}

impl ChannelLedger {
    /// An empty ledger that counts its events in `accounts`.
    pub fn new(accounts: Ledger) -> Self {
        Self {
            accounts,
            slots: Mutex::default(),
            settled: Notify::new(),
            ordered: false,
            closed: AtomicBool::new(false),
        }
    }

    /// An empty ledger of messages that keep their order: when one comes back, none behind it is
    /// written any more.
    pub fn ordered(accounts: Ledger) -> Self {
        Self {
            ordered: true,
            ..Self::new(accounts)
        }
    }

    /// Whether its messages keep their order.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// From now on none of its events is written.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.settled.notify_one();
    }

    /// Whether a message came back, or the channel was given up.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Enters a delivered message with this number of tickets, before any of them is made.
    pub fn enter(&self, tag: u64, tickets: usize, permit: Permit) {
        self.accounts.take(tickets);
        let mut slots = self.slots.lock();
        if slots.slots.is_empty() {
            slots.first = tag;
        }
        slots.bytes += permit.bytes();
        slots.slots.push_back(Slot {
            open: tickets,
            returned: false,
            permit,
        });
    }

    /// Waits until something may have been settled.
    pub async fn changed(&self) {
        self.settled.notified().await;
    }

    /// What can be told to the broker now, in order.
    pub fn take_settled(&self) -> Vec<Acknowledgement> {
        let mut slots = self.slots.lock();
        let mut found = Vec::new();
        let mut up_to = None;
        while slots.slots.front().is_some_and(|slot| slot.open == 0) {
            let tag = slots.first;
            let Some(slot) = slots.slots.pop_front() else {
                break;
            };
            let returned = slot.returned;
            slots.bytes = slots.bytes.saturating_sub(slot.permit.bytes());
            slots.first += 1;
            slots.telling += 1;
            if returned {
                // A multiple acknowledgement must not run over a message that is to come back.
                found.extend(up_to.take().map(Acknowledgement::UpTo));
                found.push(Acknowledgement::Requeue(tag));
            } else {
                up_to = Some(tag);
            }
        }
        found.extend(up_to.map(Acknowledgement::UpTo));
        found
    }

    /// The broker has been told all that was taken out.
    pub fn told(&self) {
        self.slots.lock().telling = 0;
    }

    /// Bytes of the messages that are not settled.
    pub fn bytes(&self) -> usize {
        self.slots.lock().bytes
    }

    /// Messages delivered and not yet acknowledged.
    pub fn open_messages(&self) -> usize {
        let slots = self.slots.lock();
        slots.slots.len() + slots.telling
    }
}

impl Origin for ChannelLedger {
    fn settle(&self, tag: u64, outcome: Outcome) {
        if self.ordered && !outcome.is_durable() {
            // First of all, so that nothing behind this event slips through.
            self.close();
        }
        // A message is never refused to its queue: it goes back there.
        self.accounts.settle(match outcome {
            Outcome::Refused(_) => Outcome::Returned,
            other => other,
        });
        let ready = {
            let mut slots = self.slots.lock();
            let Some(index) = tag.checked_sub(slots.first) else {
                return;
            };
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let Some(slot) = slots.slots.get_mut(index) else {
                return;
            };
            slot.open = slot.open.saturating_sub(1);
            slot.returned |= !outcome.is_durable();
            // Only a change at the front lets anything out.
            index == 0 && slot.open == 0
        };
        if ready {
            self.settled.notify_one();
        }
    }

    fn patience(&self) -> Patience {
        Patience::Queue
    }

    fn is_open(&self) -> bool {
        !self.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::Acknowledgement::{Requeue, UpTo};
    use super::*;
    use crate::supervision::Budget;

    fn ledger(tickets: &[usize]) -> (ChannelLedger, Budget) {
        let budget = Budget::new(1_000);
        let ledger = ChannelLedger::new(Ledger::default());
        for (index, tickets) in tickets.iter().enumerate() {
            ledger.enter(index as u64 + 1, *tickets, budget.take(10));
        }
        (ledger, budget)
    }

    #[test]
    fn only_the_contiguous_run_is_acknowledged() {
        let (ledger, _) = ledger(&[1, 1, 1]);
        ledger.settle(2, Outcome::Stored);
        assert!(ledger.take_settled().is_empty());
        ledger.settle(1, Outcome::Duplicate);
        assert_eq!(ledger.take_settled(), [UpTo(2)]);
        ledger.settle(3, Outcome::Retried);
        assert_eq!(ledger.take_settled(), [UpTo(3)]);
        assert_eq!(ledger.open_messages(), 3, "the broker does not know yet");
        ledger.told();
        assert_eq!(ledger.open_messages(), 0);
    }

    #[test]
    fn a_frame_is_settled_with_its_last_event() {
        let (ledger, budget) = ledger(&[3]);
        ledger.settle(1, Outcome::Stored);
        ledger.settle(1, Outcome::Stored);
        assert!(ledger.take_settled().is_empty());
        ledger.settle(1, Outcome::Stored);
        assert_eq!(ledger.take_settled(), [UpTo(1)]);
        assert!(budget.try_take(1_000).is_some(), "its bytes are given back");
    }

    #[test]
    fn a_returned_message_comes_back_and_is_never_acknowledged_over() {
        let (ledger, _) = ledger(&[1, 2, 1, 1]);
        for tag in [1, 2, 3, 4] {
            ledger.settle(tag, Outcome::Stored);
        }
        ledger.settle(2, Outcome::Returned);
        assert_eq!(ledger.take_settled(), [UpTo(1), Requeue(2), UpTo(4)]);
    }

    #[test]
    fn in_order_nothing_is_written_behind_what_came_back() {
        let ledger = ChannelLedger::ordered(Ledger::default());
        let budget = Budget::new(1_000);
        for tag in [1, 2, 3] {
            ledger.enter(tag, 1, budget.take(10));
        }
        ledger.settle(1, Outcome::Stored);
        assert!(ledger.is_open());
        ledger.settle(2, Outcome::Returned);
        assert!(!ledger.is_open());
    }

    #[test]
    fn a_new_channel_begins_anew_and_late_tickets_change_nothing() {
        let (ledger, budget) = ledger(&[1]);
        ledger.settle(1, Outcome::Stored);
        assert_eq!(ledger.take_settled(), [UpTo(1)]);
        ledger.settle(1, Outcome::Stored);
        ledger.settle(0, Outcome::Stored);
        ledger.settle(9, Outcome::Stored);
        assert!(ledger.take_settled().is_empty());
        ledger.enter(2, 1, budget.take(1));
        ledger.settle(2, Outcome::Stored);
        assert_eq!(ledger.take_settled(), [UpTo(2)]);
    }
}

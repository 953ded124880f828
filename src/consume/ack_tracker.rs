//! The messages that a channel was delivered and has not acknowledged.
//!
//! Tickets settle here directly, in any order and from any thread, and never through a mailbox that
//! could be full. The channel's acknowledger takes settlements out in order: one multiple
//! acknowledgement for the longest run of settled messages, a requeue for each returned one.
//! Prefetch bounds the tracker.
//!
//! Whatever ends a channel closes its tracker first. The broker delivers the messages of a closed
//! channel again, so from then on none of their events may be written ([`Origin::is_open`]): one
//! without an id would be stored twice.

use crate::event::budget::Permit;
use crate::event::{CallerMode, Lane, Origin, Outcome};
use crate::metrics::accounting::EventAccounting;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

struct Slot {
    /// Tickets of this message that are still out.
    open: usize,
    /// One of them was returned, so the whole message must be requeued.
    returned: bool,
    /// The message's bytes in the budget; `None` for one that was requeued unread.
    permit: Option<Permit>,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, Permit::bytes)
    }
}

#[derive(Default)]
struct Slots {
    /// Delivery tag of the first slot. Tags of a channel count from 1 without gaps.
    first: u64,
    /// Taken out as settled, and not yet acknowledged.
    telling: usize,
    /// Bytes of all slots.
    bytes: usize,
    slots: VecDeque<Slot>,
}

/// The tracker of one channel.
pub struct AckTracker {
    accounts: EventAccounting,
    slots: Mutex<Slots>,
    settled: Notify,
    /// The prefetch in force.
    window: AtomicUsize,
    /// Messages of this channel are written in their order, or not at all.
    ordered: bool,
    /// The lane of its events.
    lane: Option<Lane>,
    /// The channel is about to close, or with an order a message was returned.
    closed: AtomicBool,
}

/// Closes a tracker when it is dropped, so that a panic does so too.
pub struct CloseOnDrop(pub Arc<AckTracker>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What to tell the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// All messages up to this tag are settled.
    UpTo(u64),
    /// This message must be requeued.
    Requeue(u64),
}

impl AckTracker {
    /// An empty tracker that counts its events in `accounts`.
    pub fn new(accounts: EventAccounting) -> Self {
        Self {
            accounts,
            slots: Mutex::default(),
            settled: Notify::new(),
            window: AtomicUsize::new(usize::MAX),
            ordered: false,
            lane: None,
            closed: AtomicBool::new(false),
        }
    }

    /// An empty tracker of messages that keep their order: when one is returned, none behind it is
    /// written any more. `prefetch` is the channel's; `lane` is that of its events.
    pub fn ordered(accounts: EventAccounting, prefetch: u16, lane: Option<Lane>) -> Self {
        let tracker = Self {
            ordered: true,
            lane,
            ..Self::new(accounts)
        };
        tracker.set_prefetch(prefetch);
        tracker
    }

    /// Notes the prefetch in force.
    pub fn set_prefetch(&self, prefetch: u16) {
        self.window.store(usize::from(prefetch), Ordering::Relaxed);
    }

    /// Whether the broker delivers nothing more before a message is acknowledged.
    pub fn is_window_spent(&self) -> bool {
        self.open_messages() >= self.window.load(Ordering::Relaxed)
    }

    /// Whether its messages keep their order.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Forbids writing its events from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.settled.notify_one();
    }

    /// Whether its events may not be written any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Adds a delivered message with this number of tickets, before any of them is made.
    pub fn enter(&self, tag: u64, tickets: usize, permit: Permit) {
        self.accounts.take(tickets);
        self.add(
            tag,
            Slot {
                open: tickets,
                returned: false,
                permit: Some(permit),
            },
        );
    }

    /// Adds a delivered message that has been requeued unread. Delivery tags have no gaps.
    pub fn enter_requeued(&self, tag: u64) {
        self.add(
            tag,
            Slot {
                open: 0,
                returned: true,
                permit: None,
            },
        );
        self.settled.notify_one();
    }

    fn add(&self, tag: u64, slot: Slot) {
        let mut slots = self.slots.lock();
        if slots.slots.is_empty() {
            slots.first = tag;
        }
        slots.bytes += slot.bytes();
        slots.slots.push_back(slot);
    }

    /// Waits until something may have been settled.
    pub async fn changed(&self) {
        self.settled.notified().await;
    }

    /// Takes out what the broker can be told now, in order.
    pub fn take_settled(&self) -> Vec<Acknowledgement> {
        let mut slots = self.slots.lock();
        let mut found = Vec::new();
        let mut up_to = None;
        while slots.slots.front().is_some_and(|slot| slot.open == 0) {
            let tag = slots.first;
            let Some(slot) = slots.slots.pop_front() else {
                break;
            };
            slots.bytes = slots.bytes.saturating_sub(slot.bytes());
            slots.first += 1;
            if slot.permit.is_none() {
                continue;
            }
            slots.telling += 1;
            if slot.returned {
                // A multiple acknowledgement must not cover a message that is to be requeued.
                found.extend(up_to.take().map(Acknowledgement::UpTo));
                found.push(Acknowledgement::Requeue(tag));
            } else {
                up_to = Some(tag);
            }
        }
        found.extend(up_to.map(Acknowledgement::UpTo));
        found
    }

    /// Notes that the broker has been told all that was taken out.
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

impl Origin for AckTracker {
    fn settle(&self, tag: u64, outcome: Outcome) {
        if self.ordered && !outcome.is_durable() {
            // Before anything else, so that no event behind this one is written.
            self.close();
        }
        // A message is never refused to its queue: it is requeued.
        self.accounts.settle(match outcome {
            Outcome::Refused => Outcome::Returned,
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
            // Only the front can be acknowledged.
            index == 0 && slot.open == 0
        };
        if ready {
            self.settled.notify_one();
        }
    }

    fn caller_mode(&self) -> CallerMode {
        CallerMode::Queue
    }

    fn is_open(&self) -> bool {
        !self.is_closed()
    }

    fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::ack_tracker::Acknowledgement::{Requeue, UpTo};
    use crate::event::budget::Budget;

    fn tracker(tickets: &[usize]) -> (AckTracker, Budget) {
        let budget = Budget::new(1_000);
        let tracker = AckTracker::new(EventAccounting::default());
        for (index, tickets) in tickets.iter().enumerate() {
            tracker.enter(index as u64 + 1, *tickets, budget.take(10));
        }
        (tracker, budget)
    }

    #[test]
    fn only_the_contiguous_run_is_acknowledged() {
        let (tracker, _) = tracker(&[1, 1, 1]);
        tracker.settle(2, Outcome::Stored);
        assert!(tracker.take_settled().is_empty());
        tracker.settle(1, Outcome::Duplicate);
        assert_eq!(tracker.take_settled(), [UpTo(2)]);
        tracker.settle(3, Outcome::Retried);
        assert_eq!(tracker.take_settled(), [UpTo(3)]);
        assert_eq!(tracker.open_messages(), 3, "the broker does not know yet");
        tracker.told();
        assert_eq!(tracker.open_messages(), 0);
    }

    #[test]
    fn a_frame_is_settled_with_its_last_event() {
        let (tracker, budget) = tracker(&[3]);
        tracker.settle(1, Outcome::Stored);
        tracker.settle(1, Outcome::Stored);
        assert!(tracker.take_settled().is_empty());
        tracker.settle(1, Outcome::Stored);
        assert_eq!(tracker.take_settled(), [UpTo(1)]);
        assert!(budget.try_take(1_000).is_some(), "its bytes are given back");
    }

    #[test]
    fn a_returned_message_comes_back_and_is_never_acknowledged_over() {
        let (tracker, _) = tracker(&[1, 2, 1, 1]);
        for tag in [1, 2, 3, 4] {
            tracker.settle(tag, Outcome::Stored);
        }
        tracker.settle(2, Outcome::Returned);
        assert_eq!(tracker.take_settled(), [UpTo(1), Requeue(2), UpTo(4)]);
    }

    #[test]
    fn in_order_nothing_is_written_behind_what_came_back() {
        let tracker = AckTracker::ordered(EventAccounting::default(), 10, Some(Lane::unfenced(1)));
        let budget = Budget::new(1_000);
        for tag in [1, 2, 3] {
            tracker.enter(tag, 1, budget.take(10));
        }
        tracker.settle(1, Outcome::Stored);
        assert!(tracker.is_open());
        tracker.settle(2, Outcome::Returned);
        assert!(!tracker.is_open());
    }

    #[test]
    fn an_unread_message_is_requeued_out_of_turn_and_acknowledged_over() {
        let (tracker, budget) = tracker(&[1, 1]);
        tracker.enter_requeued(3);
        tracker.enter(4, 1, budget.take(10));
        tracker.enter_requeued(5);
        for tag in [1, 2] {
            tracker.settle(tag, Outcome::Stored);
        }
        assert_eq!(tracker.take_settled(), [UpTo(2)]);
        tracker.settle(4, Outcome::Stored);
        assert_eq!(
            tracker.take_settled(),
            [UpTo(4)],
            "the last tag is unknown by now"
        );
        tracker.told();
        assert_eq!((tracker.open_messages(), tracker.bytes()), (0, 0));
    }

    #[test]
    fn the_window_is_spent_with_as_many_messages_as_the_prefetch() {
        let (tracker, _) = tracker(&[1, 2]);
        assert!(!tracker.is_window_spent());
        tracker.set_prefetch(2);
        assert!(tracker.is_window_spent());
        tracker.settle(1, Outcome::Stored);
        tracker.take_settled();
        assert!(tracker.is_window_spent(), "the broker does not know yet");
        tracker.told();
        assert!(!tracker.is_window_spent());
    }

    #[test]
    fn a_new_channel_begins_anew_and_late_tickets_change_nothing() {
        let (tracker, budget) = tracker(&[1]);
        tracker.settle(1, Outcome::Stored);
        assert_eq!(tracker.take_settled(), [UpTo(1)]);
        tracker.settle(1, Outcome::Stored);
        tracker.settle(0, Outcome::Stored);
        tracker.settle(9, Outcome::Stored);
        assert!(tracker.take_settled().is_empty());
        tracker.enter(2, 1, budget.take(1));
        tracker.settle(2, Outcome::Stored);
        assert_eq!(tracker.take_settled(), [UpTo(2)]);
    }
}

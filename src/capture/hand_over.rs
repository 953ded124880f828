//! Handing changes to their writer, some at a time.

use super::CaptureError;
use super::in_hand::{InHand, Mark};
use super::params::CaptureParams;
use super::record::Refused;
use crate::batch::BatchAccumulator;
use crate::batch::messages::{AccumulatorMessage, Group, Push, PushMode};
use crate::consume::ack_tracker::{AckTracker, CloseOnDrop};
use crate::event::budget::Budget;
use crate::event::{Cause, Delivery, Event, Ticket, item};
use crate::retry::retry_supervisor::{RetrySupervisor, Unreadable};
use crate::store::ErrorKind;
use crate::store::dead_letters::{DeadLetter, DeadLetterFailure};
use crate::store::leases::Lease;
use crate::supervision::{Mailbox, failpoint};
use std::sync::Arc;

/// Events of a group, and its bytes, at which it is handed over.
const GROUP: (usize, usize) = (500, 256 << 10);
/// Bytes in hand from which on no more is handed over.
const WINDOW: usize = 8 << 20;

/// The changes of a session on their way to the writer.
pub(super) struct HandOver {
    // Closed first when this is dropped: nothing of the session is written from then on.
    _closed_at_the_end: CloseOnDrop,
    in_hand: InHand,
    events: Vec<Event>,
    refused: Vec<Refused>,
    bytes: usize,
    capture: String,
    lane: Mailbox<BatchAccumulator>,
    retry: Mailbox<RetrySupervisor>,
    budget: Budget,
}

impl HandOver {
    pub(super) fn new(params: &CaptureParams, lease: &Lease) -> Self {
        let accounts = params.metrics.accounting.consume.clone();
        let lane = Some(params.lane_under(lease));
        let tracker = Arc::new(AckTracker::ordered(accounts, u16::MAX, lane));
        Self {
            _closed_at_the_end: CloseOnDrop(Arc::clone(&tracker)),
            in_hand: InHand::new(tracker),
            events: Vec::new(),
            refused: Vec::new(),
            bytes: 0,
            capture: params.name().to_owned(),
            lane: params.lane.clone(),
            retry: params.retry.clone(),
            budget: params.budget.clone(),
        }
    }

    /// Adds an event, or what takes its place among the dead letters.
    pub(super) fn add(&mut self, recorded: Result<Event, Refused>) {
        match recorded {
            Ok(event) => {
                self.bytes += event.footprint();
                self.events.push(event);
            }
            Err(refused) => {
                self.bytes += Event::SMALLEST + refused.data.get().len();
                self.refused.push(refused);
            }
        }
    }

    /// Notes what holds when all that was added is durable.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.in_hand.mark(mark, self.gathers());
    }

    fn gathers(&self) -> bool {
        !self.events.is_empty() || !self.refused.is_empty()
    }

    /// Whether a group is to be handed over.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() + self.refused.len() >= GROUP.0 || self.bytes >= GROUP.1
    }

    /// Whether as much is in hand as may be.
    pub(super) fn has_no_room(&self) -> bool {
        self.in_hand.tracker.bytes() >= WINDOW
    }

    /// Whether everything is durable.
    pub(super) fn is_empty(&self) -> bool {
        !self.gathers() && self.in_hand.is_empty()
    }

    /// Waits until something may have become durable.
    pub(super) async fn settled_some(&self) {
        self.in_hand.tracker.changed().await;
    }

    /// What is durable now.
    ///
    /// # Errors
    /// An event has come back.
    pub(super) fn settled(&mut self) -> Result<Vec<Mark>, CaptureError> {
        self.in_hand.settled().map_err(|_| returned())
    }

    /// Hands over what was gathered, when there is room.
    ///
    /// # Errors
    /// An event has come back.
    pub(super) async fn flush(&mut self) -> Result<(), CaptureError> {
        if !self.gathers() {
            return Ok(());
        }
        let tracker = Arc::clone(&self.in_hand.tracker);
        while self.has_no_room() {
            tracker.changed().await;
            // Groups leave the tracker as they are settled.
            self.in_hand.settle().map_err(|_| returned())?;
        }
        let group = self.in_hand.begin_group();
        let permit = self.budget.take(std::mem::take(&mut self.bytes));
        tracker.enter(group, self.events.len() + self.refused.len(), permit);
        for refused in std::mem::take(&mut self.refused) {
            let unreadable = Unreadable {
                letter: self.letter(refused),
                ticket: Ticket::new(tracker.clone(), group),
            };
            if self.retry.send(unreadable).await.is_err() {
                tracing::warn!("the retry supervisor crashed; changes are read again");
            }
        }
        let events = std::mem::take(&mut self.events);
        let delivery = |event| Delivery::new(event, Ticket::new(tracker.clone(), group));
        let deliveries: Vec<Delivery> = events.into_iter().map(delivery).collect();
        failpoint::hit("capture.push");
        if !deliveries.is_empty() {
            let push = Push {
                groups: vec![Group {
                    mode: PushMode::Shared,
                    deliveries,
                }],
                // A change that is committed is to be readable soon.
                window_spent: true,
            };
            let pushed = self.lane.send(AccumulatorMessage::Push(push)).await;
            pushed.map_err(|_| returned())?;
        }
        Ok(())
    }

    /// Has nothing more written, and waits until what waited has left the writer.
    pub(super) async fn close(&self) {
        self.in_hand.tracker.close();
        if self.lane.send(AccumulatorMessage::Discard).await.is_err() {
            tracing::warn!("the accumulator crashed; what it held has returned");
        }
    }

    fn letter(&self, refused: Refused) -> DeadLetter {
        let failure = DeadLetterFailure {
            at: item::now(),
            cause: Cause::Malformed.as_str().to_owned(),
            error: format!(
                "the change at {} has no event: {}",
                refused.lsn, refused.reason
            ),
            sqlstate: None,
            attempts: 1,
        };
        let body = refused.data.get().as_bytes().to_vec();
        let origin = format!("capture {}", self.capture);
        let mut letter = DeadLetter::new(refused.event_id, failure, &origin, body);
        letter.event_type = Some(refused.event_type);
        letter.content_type = Some("application/json".to_owned());
        letter
    }
}

fn returned() -> CaptureError {
    CaptureError::new(
        ErrorKind::Outage,
        "a change could not be written; changes are read again from the stored position",
    )
}

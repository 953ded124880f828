//! The way to the accumulator for events whose callers wait.

use crate::batch::BatchAccumulator;
use crate::batch::messages::AccumulatorMessage;
use crate::batch::waiting_events::WaitingEvents;
use crate::event::Delivery;
use crate::supervision::Mailbox;

/// Adds events to an accumulator's [`WaitingEvents`] and tells it; clones share them.
#[derive(Clone)]
pub struct IngestQueue {
    waiting: WaitingEvents,
    accumulator: Mailbox<BatchAccumulator>,
}

impl IngestQueue {
    /// The queue of this accumulator, which takes from the same `waiting`.
    pub fn new(waiting: WaitingEvents, accumulator: Mailbox<BatchAccumulator>) -> Self {
        Self {
            waiting,
            accumulator,
        }
    }

    /// Adds events. Their tickets answer their callers.
    pub fn push(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        if self.waiting.add(deliveries) {
            // With a full mailbox the accumulator has messages to handle, and looks here after each.
            let _ = self.accumulator.try_send(AccumulatorMessage::Nudge);
        }
    }
}

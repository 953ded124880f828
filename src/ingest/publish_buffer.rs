//! Events on their way to the work queue, from all HTTP workers.
//!
//! RabbitMQ's cost is by the message, and a message that is alone in flight costs it ten times one
//! among many. So the workers share the buffer: the one that gets a permit takes all that has gathered,
//! from whichever worker it is.

use crate::broker::{FrameBounds, OutgoingFrame};
use crate::event::Delivery;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames that may be on their way at once if they are worth it, where the setting has fewer: full
/// ones, and those of so many events. They gain little by waiting for each other.
const FRAMES_BESIDE: usize = 8;
const ENOUGH: usize = 24;

#[derive(Default)]
struct BufferState {
    pending: VecDeque<Delivery>,
    in_flight: usize,
}

/// What waits, and how many frames are on their way; clones share them.
#[derive(Clone, Default)]
pub struct PublishBuffer {
    state: Arc<Mutex<BufferState>>,
}

/// A frame's place among those on their way; dropping it frees the place.
pub struct InFlightPermit(PublishBuffer);

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
    }
}

impl PublishBuffer {
    pub fn add(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.state.lock().pending.extend(deliveries);
    }

    /// The next frame, if anything waits and fewer than `frames` are on their way; one that is worth
    /// it also beside others.
    pub fn next(
        &self,
        frames: usize,
        bounds: FrameBounds,
    ) -> Option<(OutgoingFrame, InFlightPermit)> {
        loop {
            let (deliveries, place) = {
                let mut state = self.state.lock();
                let most = if is_worth_a_frame(&state.pending, bounds) {
                    frames.max(FRAMES_BESIDE)
                } else {
                    frames
                };
                if state.in_flight >= most || state.pending.is_empty() {
                    return None;
                }
                state.in_flight += 1;
                (
                    bounds.take_front(&mut state.pending),
                    InFlightPermit(self.clone()),
                )
            };
            if let Some(frame) = OutgoingFrame::of(deliveries) {
                return Some((frame, place));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().pending.is_empty()
    }

    /// All that waits, to go another way.
    pub fn take(&self) -> VecDeque<Delivery> {
        std::mem::take(&mut self.state.lock().pending)
    }
}

fn is_worth_a_frame(pending: &VecDeque<Delivery>, bounds: FrameBounds) -> bool {
    let mut bytes = 0;
    pending.len() >= bounds.events.min(ENOUGH)
        || pending.iter().any(|delivery| {
            bytes += delivery.event.weight();
            bytes >= bounds.bytes
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CallerMode, fixture};

    fn deliveries(count: usize) -> Vec<Delivery> {
        fixture::deliveries(count, CallerMode::Caller)
    }

    #[test]
    fn frames_take_what_has_gathered_within_bounds_and_places() {
        let publish_buffer = PublishBuffer::default();
        let bounds = FrameBounds {
            events: 3,
            bytes: 1 << 20,
        };
        assert!(publish_buffer.next(1, bounds).is_none(), "nothing waits");
        publish_buffer.add(deliveries(4));
        let (frame, place) = publish_buffer.next(1, bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 3);
        assert!(publish_buffer.next(1, bounds).is_none(), "no place is free");
        publish_buffer.add(deliveries(2));
        let (full, beside) = publish_buffer.next(1, bounds).unwrap();
        assert_eq!(full.deliveries.len(), 3, "a full one waits for no other");
        drop(beside);
        publish_buffer.add(deliveries(1));
        drop(place);
        let (frame, _place) = publish_buffer.next(1, bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 1);
        publish_buffer.add(deliveries(2));
        assert_eq!(publish_buffer.take().len(), 2);
    }
}

//! Events on their way to the work queue, from all HTTP workers.
//!
//! RabbitMQ's cost is by the message, and each message that is alone on its way costs it ten times one
//! among many. So the workers fill frames together: whoever finds a place free takes all that has
//! gathered, from whichever worker it is.

use crate::broker::sorting::Bounds;
use crate::event::{Delivery, frame};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames that may be on their way at once if they are worth it, where the setting has fewer: full
/// ones, and those of so many events. They gain little by waiting for each other.
const FRAMES_BESIDE: usize = 8;
const ENOUGH: usize = 24;

#[derive(Default)]
struct State {
    pending: VecDeque<Delivery>,
    in_flight: usize,
}

/// What waits, and how many frames are on their way; clones share them.
#[derive(Clone, Default)]
pub struct Departures {
    state: Arc<Mutex<State>>,
}

/// A frame's place among those on their way; dropping it frees the place.
pub struct Place(Departures);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
    }
}

/// A message for a queue, and whom to answer for the events in it.
pub struct Frame {
    /// Its bytes.
    pub body: Vec<u8>,
    /// Its events.
    pub deliveries: Vec<Delivery>,
}

impl Departures {
    /// Adds events.
    pub fn add(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.state.lock().pending.extend(deliveries);
    }

    /// The next frame, if anything waits and fewer than `frames` are on their way; one that is worth
    /// it also beside others.
    pub fn next(&self, frames: usize, bounds: Bounds) -> Option<(Frame, Place)> {
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
                (front(&mut state.pending, bounds), Place(self.clone()))
            };
            if let Some(frame) = Frame::of(deliveries) {
                return Some((frame, place));
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().pending.is_empty()
    }

    /// All that waits, to go another way.
    pub fn take(&self) -> VecDeque<Delivery> {
        std::mem::take(&mut self.state.lock().pending)
    }
}

fn is_worth_a_frame(pending: &VecDeque<Delivery>, bounds: Bounds) -> bool {
    let mut bytes = 0;
    pending.len() >= bounds.events.min(ENOUGH)
        || pending.iter().any(|delivery| {
            bytes += delivery.event.weight();
            bytes >= bounds.bytes
        })
}

/// The events for a frame from the front of what waits.
pub fn front(pending: &mut VecDeque<Delivery>, bounds: Bounds) -> Vec<Delivery> {
    let (mut events, mut bytes) = (0, 0);
    for delivery in pending.iter().take(bounds.events) {
        bytes += delivery.event.weight();
        if events > 0 && bytes > bounds.bytes {
            break;
        }
        events += 1;
    }
    pending.drain(..events).collect()
}

impl Frame {
    /// A frame of these events; `None` when none of them could be written, which does not occur.
    pub fn of(deliveries: Vec<Delivery>) -> Option<Self> {
        let mut encoder = frame::Encoder::default();
        let mut written = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match encoder.push(&delivery.event) {
                Ok(()) => written.push(delivery),
                Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
            }
        }
        (!written.is_empty()).then(|| Self {
            body: encoder.finish(),
            deliveries: written,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Patience, fixture};

    fn deliveries(count: usize) -> Vec<Delivery> {
        fixture::deliveries(count, Patience::Caller)
    }

    #[test]
    fn frames_take_what_has_gathered_within_bounds_and_places() {
        let departures = Departures::default();
        let bounds = Bounds {
            events: 3,
            bytes: 1 << 20,
        };
        assert!(departures.next(1, bounds).is_none(), "nothing waits");
        departures.add(deliveries(4));
        let (frame, place) = departures.next(1, bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 3);
        assert!(departures.next(1, bounds).is_none(), "no place is free");
        departures.add(deliveries(2));
        let (full, beside) = departures.next(1, bounds).unwrap();
        assert_eq!(full.deliveries.len(), 3, "a full one waits for no other");
        drop(beside);
        departures.add(deliveries(1));
        drop(place);
        let (frame, _place) = departures.next(1, bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 1);
        departures.add(deliveries(2));
        assert_eq!(departures.take().len(), 2);
    }

    #[test]
    fn a_single_event_may_be_larger_than_the_bound() {
        let departures = Departures::default();
        departures.add(deliveries(2));
        let bounds = Bounds {
            events: 10,
            bytes: 1,
        };
        let (frame, _place) = departures.next(2, bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 1);
    }
}

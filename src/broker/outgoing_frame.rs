//! Filling frames: the messages in which events travel to Eclusa's own queues.

use crate::event::{Delivery, frame};
use std::collections::VecDeque;
use uuid::Uuid;

/// Bounds of a frame.
#[derive(Debug, Clone, Copy)]
pub struct FrameBounds {
    pub events: usize,
    /// Most bytes, unless a single event is larger.
    pub bytes: usize,
}

impl FrameBounds {
    /// Takes the events of the next frame from the front of what waits. The letter and the attempts
    /// are in the frame's headers: an event that was a dead letter travels alone, and the events of a
    /// frame have their attempts in common.
    pub fn take_front(self, waiting: &mut VecDeque<Delivery>) -> Vec<Delivery> {
        let (mut events, mut bytes) = (0, 0);
        if let Some(first) = waiting.front() {
            let fits = |next: &&Delivery| {
                first.letter.is_none() && next.letter.is_none() && next.attempts == first.attempts
            };
            let rest = waiting.iter().skip(1).take_while(fits);
            for delivery in std::iter::once(first).chain(rest).take(self.events) {
                bytes += delivery.event.weight();
                if events > 0 && bytes > self.bytes {
                    break;
                }
                events += 1;
            }
        }
        waiting.drain(..events).collect()
    }
}

/// A message for one of Eclusa's queues, and the deliveries to settle when it is confirmed.
pub struct OutgoingFrame {
    pub body: Vec<u8>,
    /// The events in it.
    pub deliveries: Vec<Delivery>,
}

impl OutgoingFrame {
    /// Fills the next frame from the front of what waits; `None` when nothing waits.
    pub fn fill(waiting: &mut VecDeque<Delivery>, bounds: FrameBounds) -> Option<Self> {
        while !waiting.is_empty() {
            if let Some(frame) = Self::of(bounds.take_front(waiting)) {
                return Some(frame);
            }
        }
        None
    }

    /// A frame of the events that [`FrameBounds::take_front`] took. An event that cannot be encoded,
    /// which does not occur, is left out and returns to its source; `None` when none is left.
    pub fn of(deliveries: Vec<Delivery>) -> Option<Self> {
        let mut encoder = frame::Encoder::default();
        let mut encoded = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match encoder.push(&delivery.event) {
                Ok(()) => encoded.push(delivery),
                Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
            }
        }
        (!encoded.is_empty()).then(|| Self {
            body: encoder.finish(),
            deliveries: encoded,
        })
    }

    /// The dead letter that its event was.
    pub fn letter(&self) -> Option<Uuid> {
        self.deliveries.first().and_then(|first| first.letter)
    }

    /// Failed attempts of its events.
    pub fn attempts(&self) -> u32 {
        self.deliveries.first().map_or(0, |first| first.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CallerMode, fixture, id};

    fn waiting(count: usize) -> VecDeque<Delivery> {
        fixture::deliveries(count, CallerMode::Caller).into()
    }

    #[test]
    fn frames_keep_to_their_bounds_and_to_what_their_headers_say() {
        let bounds = FrameBounds {
            events: 3,
            bytes: 1 << 20,
        };
        let mut waiting = waiting(10);
        let letter = id::fresh();
        waiting[4].letter = Some(letter);
        waiting[6].attempts = 1;
        waiting[7].attempts = 1;
        let order: Vec<_> = waiting.iter().map(|d| d.event.event_id).collect();
        let mut found = Vec::new();
        let mut sizes = Vec::new();
        while let Some(frame) = OutgoingFrame::fill(&mut waiting, bounds) {
            let events = frame::decode(&frame.body).unwrap();
            assert_eq!(events.len(), frame.deliveries.len());
            sizes.push((events.len(), frame.letter().is_some(), frame.attempts()));
            found.extend(events.into_iter().map(|event| event.event_id));
        }
        assert_eq!(found, order);
        let expected = [(3, false, 0), (1, false, 0), (1, true, 0), (1, false, 0)];
        assert_eq!(sizes[..4], expected);
        assert_eq!(sizes[4..], [(2, false, 1), (2, false, 0)]);
    }

    #[test]
    fn a_single_event_may_be_larger_than_the_bound() {
        let bounds = FrameBounds {
            events: 10,
            bytes: 1,
        };
        let frame = OutgoingFrame::fill(&mut waiting(2), bounds).unwrap();
        assert_eq!(frame.deliveries.len(), 1);
    }
}

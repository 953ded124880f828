//! The chamber itself: events that gather until a batch of them is due. Pure data; the actor around
//! it ([`super::BatchAccumulator`]) has the clock's alarm and the writers.

use crate::config::batch::BatchSettings;
use crate::event::{Awaited, Batch, Delivery, Patience, Trigger};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Pending {
    delivery: Delivery,
    since: Instant,
    weight: usize,
    /// It goes in a batch of its own, with the others of this number, but in its turn.
    alone: Option<u64>,
}

/// Events that wait for a writer.
pub struct OpenBatch {
    settings: BatchSettings,
    awaited: Awaited,
    pending: VecDeque<Pending>,
    bytes: usize,
    /// How many of them a caller waits for.
    callers: usize,
    /// Groups that go alone, before anything else: what was in hand when something ended
    /// uncleanly may have been the cause.
    suspects: VecDeque<Vec<Delivery>>,
    /// The last batch cut was such a group. Between two of them one ordinary batch goes, so that
    /// groups that come back again and again hold nobody up.
    last_alone: bool,
    draining: bool,
    /// How many of `pending` go alone in their turn, and the number of the next group of them.
    in_line: usize,
    next_group: u64,
    /// How many of `pending` do not wait.
    flushing: usize,
}

impl OpenBatch {
    /// With nothing in it.
    pub fn new(settings: BatchSettings, awaited: Awaited) -> Self {
        Self {
            settings,
            awaited,
            pending: VecDeque::new(),
            bytes: 0,
            callers: 0,
            suspects: VecDeque::new(),
            last_alone: false,
            draining: false,
            in_line: 0,
            next_group: 0,
            flushing: 0,
        }
    }

    /// The same, emptied: what was in it returns to its source.
    pub fn emptied(&self) -> Self {
        Self {
            draining: self.draining,
            ..Self::new(self.settings.clone(), self.awaited.clone())
        }
    }

    /// Adds events.
    pub fn push(&mut self, deliveries: Vec<Delivery>) {
        self.append(deliveries, None);
    }

    /// Adds events that go in a batch of their own, but behind all that are here already.
    pub fn push_alone_in_line(&mut self, deliveries: Vec<Delivery>) {
        self.in_line += deliveries.len();
        self.next_group += 1;
        self.append(deliveries, Some(self.next_group));
    }

    fn append(&mut self, deliveries: Vec<Delivery>, alone: Option<u64>) {
        let since = Instant::now();
        for delivery in deliveries {
            let weight = delivery.event.weight();
            self.bytes += weight;
            self.callers += usize::from(delivery.ticket.patience() == Patience::Caller);
            self.pending.push_back(Pending {
                delivery,
                since,
                weight,
                alone,
            });
        }
    }

    /// Adds events that go in a batch of their own.
    pub fn push_alone(&mut self, deliveries: Vec<Delivery>) {
        self.suspects.push_back(deliveries);
    }

    /// How long a few events may wait for others though a writer is idle.
    pub fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// Whether nothing waits any more.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// New bounds for what is in it and what comes.
    pub fn reconfigure(&mut self, settings: BatchSettings) {
        self.settings = settings;
    }

    /// From now on nothing waits.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// What is here now does not wait.
    pub fn flush(&mut self) {
        self.flushing = self.pending.len();
    }

    /// Why a batch should leave now, if it should.
    pub fn due(&self) -> Option<Trigger> {
        let ordinary = self.ordinary_due();
        if self.suspects.is_empty() || (self.last_alone && ordinary.is_some()) {
            ordinary
        } else {
            Some(Trigger::Alone)
        }
    }

    fn ordinary_due(&self) -> Option<Trigger> {
        let oldest = self.pending.front()?;
        if oldest.alone.is_some() {
            return Some(Trigger::Alone);
        }
        if self.pending.len() >= self.settings.max_events {
            return Some(Trigger::Size);
        }
        if self.bytes >= self.max_bytes() {
            return Some(Trigger::Bytes);
        }
        if self.draining || self.flushing > 0 {
            return Some(Trigger::Drain);
        }
        if oldest.since.elapsed() >= self.settings.max_wait {
            return Some(Trigger::Time);
        }
        // What stands before a group that goes alone is not held back either.
        if self.callers > 0 || self.in_line > 0 || self.holds_awaited() {
            return Some(Trigger::Idle);
        }
        None
    }

    /// How long the oldest event may still wait; `None` while there is none.
    pub fn time_left(&self) -> Option<Duration> {
        let oldest = self.pending.front()?;
        Some(
            self.settings
                .max_wait
                .saturating_sub(oldest.since.elapsed()),
        )
    }

    /// Takes out a batch: a group that goes alone, else the oldest events within the bounds.
    pub fn cut(&mut self, trigger: Trigger) -> Batch {
        self.last_alone = trigger == Trigger::Alone;
        if trigger == Trigger::Alone
            && let Some(group) = self.suspects.pop_front()
        {
            return Batch::new(group, trigger);
        }
        let (mut bytes, mut events) = (0, 0);
        let group = self.pending.front().and_then(|oldest| oldest.alone);
        // A group that goes alone goes whole.
        let bound = group.map_or(self.settings.max_events, |_| usize::MAX);
        for pending in self.pending.iter().take(bound) {
            if pending.alone != group {
                break;
            }
            if group.is_none() && events > 0 && bytes + pending.weight > self.max_bytes() {
                break;
            }
            bytes += pending.weight;
            events += 1;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.flushing = self.flushing.saturating_sub(events);
        if group.is_some() {
            self.in_line = self.in_line.saturating_sub(events);
        }
        let deliveries: Vec<Delivery> = self.pending.drain(..events).map(|p| p.delivery).collect();
        let callers = deliveries
            .iter()
            .filter(|delivery| delivery.ticket.patience() == Patience::Caller)
            .count();
        self.callers = self.callers.saturating_sub(callers);
        Batch::new(deliveries, trigger)
    }

    fn max_bytes(&self) -> usize {
        usize::try_from(self.settings.max_bytes.as_u64()).unwrap_or(usize::MAX)
    }

    fn holds_awaited(&self) -> bool {
        !self.awaited.is_empty()
            && self
                .pending
                .iter()
                .any(|pending| self.awaited.contains(&pending.delivery.event.event_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::deliveries;
    use bytesize::ByteSize;

    fn open(max_events: usize, max_bytes: u64, max_wait: Duration) -> OpenBatch {
        let settings = BatchSettings {
            max_events,
            max_bytes: ByteSize::b(max_bytes),
            max_wait,
            linger: Duration::ZERO,
            writers: 1,
        };
        OpenBatch::new(settings, Awaited::default())
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn size_bytes_and_time_open_the_gate() {
        let mut batch = open(3, 1_000_000, HOUR);
        assert_eq!(batch.due(), None);
        batch.push(deliveries(2, Patience::Queue));
        assert_eq!(batch.due(), None);
        assert!(batch.time_left().unwrap() > HOUR / 2);
        batch.push(deliveries(2, Patience::Queue));
        assert_eq!(batch.due(), Some(Trigger::Size));
        assert_eq!(batch.cut(Trigger::Size).len(), 3);
        assert_eq!(batch.due(), None);

        let mut batch = open(100, 500, HOUR);
        batch.push(deliveries(4, Patience::Queue));
        assert_eq!(batch.due(), Some(Trigger::Bytes));
        assert_eq!(batch.cut(Trigger::Bytes).len(), 2, "within the bytes");
        assert_eq!(batch.cut(Trigger::Bytes).len(), 2);

        let mut batch = open(100, 500, Duration::ZERO);
        batch.push(deliveries(1, Patience::Queue));
        assert_eq!(batch.due(), Some(Trigger::Time));
    }

    #[test]
    fn callers_readers_and_the_end_do_not_wait() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.push(deliveries(1, Patience::Queue));
        batch.push(deliveries(1, Patience::Caller));
        assert_eq!(batch.due(), Some(Trigger::Idle));
        assert_eq!(batch.cut(Trigger::Idle).len(), 2);
        batch.push(deliveries(1, Patience::Queue));
        assert_eq!(batch.due(), None, "the caller's event has left");

        let mut event = deliveries(1, Patience::Queue);
        let waiting = batch.awaited.wait_for(event[0].event.event_id);
        batch.push(std::mem::take(&mut event));
        assert_eq!(batch.due(), Some(Trigger::Idle));
        drop(waiting);
        assert_eq!(batch.due(), None);
        batch.drain();
        assert_eq!(batch.due(), Some(Trigger::Drain));
    }

    #[test]
    fn suspects_go_first_and_alone() {
        let mut batch = open(2, 1_000_000, HOUR);
        batch.push(deliveries(5, Patience::Queue));
        batch.push_alone(deliveries(3, Patience::Queue));
        batch.push_alone(deliveries(1, Patience::Queue));
        assert_eq!(batch.due(), Some(Trigger::Alone));
        assert_eq!(batch.cut(Trigger::Alone).len(), 3);
        assert_eq!(batch.due(), Some(Trigger::Size), "nobody is held up");
        assert_eq!(batch.cut(Trigger::Size).len(), 2);
        assert_eq!(batch.due(), Some(Trigger::Alone));
        assert_eq!(batch.cut(Trigger::Alone).len(), 1);
        assert_eq!(batch.due(), Some(Trigger::Size));
        assert_eq!(batch.emptied().due(), None);
    }

    #[test]
    fn in_line_they_go_alone_and_keep_their_place() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.push(deliveries(2, Patience::Queue));
        batch.push_alone_in_line(deliveries(3, Patience::Queue));
        batch.push_alone_in_line(deliveries(1, Patience::Queue));
        batch.push(deliveries(4, Patience::Queue));
        let mut cut = Vec::new();
        while let Some(trigger) = batch.due() {
            cut.push((trigger, batch.cut(trigger).len()));
        }
        let alone = |events| (Trigger::Alone, events);
        assert_eq!(cut, [(Trigger::Idle, 2), alone(3), alone(1)]);
        assert_eq!(batch.pending.len(), 4, "an ordinary batch, which may wait");
    }
}

//! `OpenBatch`: events that gather until a batch of them is due. Data only; the timer and the
//! writers are [`crate::batch::BatchAccumulator`]'s.

use super::messages::{Group, PushMode};
use super::row_limit::RowLimit;
use crate::config::batch::BatchSettings;
use crate::event::read_waiters::ReadWaiters;
use crate::event::{Batch, CallerMode, Delivery, Trigger};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Pending {
    delivery: Delivery,
    since: Instant,
    weight: usize,
    /// The group that it is written with, in a batch of its own and in its turn.
    alone: Option<u64>,
}

/// Events that wait for a writer.
pub struct OpenBatch {
    settings: BatchSettings,
    read_waiters: ReadWaiters,
    limit: RowLimit,
    pending: VecDeque<Pending>,
    bytes: usize,
    /// How many of `pending` have a waiting caller.
    callers: usize,
    /// Groups that are written alone and first: what was in hand when something ended uncleanly
    /// may have been the cause.
    suspects: VecDeque<Vec<Delivery>>,
    /// The last batch cut was such a group. One ordinary batch follows each of them, so that groups
    /// that are delivered again and again do not starve the others.
    last_alone: bool,
    draining: bool,
    /// Number of events in `pending` that are written alone in their turn, and the id of the next such
    /// group.
    in_turn: usize,
    next_group: u64,
    /// How many of `pending`, from the front, are due, and why.
    flushing: usize,
    flush_trigger: Trigger,
}

impl OpenBatch {
    pub fn new(settings: BatchSettings, read_waiters: ReadWaiters) -> Self {
        Self {
            settings,
            read_waiters,
            limit: RowLimit::default(),
            pending: VecDeque::new(),
            bytes: 0,
            callers: 0,
            suspects: VecDeque::new(),
            last_alone: false,
            draining: false,
            in_turn: 0,
            next_group: 0,
            flushing: 0,
            flush_trigger: Trigger::Drain,
        }
    }

    /// An empty batch with the same settings.
    pub fn emptied(&self) -> Self {
        Self {
            draining: self.draining,
            ..Self::new(self.settings.clone(), self.read_waiters.clone())
        }
    }

    /// Adds events that share batches.
    pub fn push(&mut self, deliveries: Vec<Delivery>) {
        self.append(deliveries, None);
    }

    /// Adds events in their mode.
    pub fn push_group(&mut self, group: Group) {
        match group.mode {
            PushMode::Shared => self.append(group.deliveries, None),
            PushMode::AloneFirst => self.suspects.push_back(group.deliveries),
            PushMode::AloneInTurn => {
                self.next_group += 1;
                self.append(group.deliveries, Some(self.next_group));
            }
        }
    }

    fn append(&mut self, deliveries: Vec<Delivery>, alone: Option<u64>) {
        let since = Instant::now();
        for delivery in deliveries {
            let weight = delivery.event.weight();
            self.add(Pending {
                delivery,
                since,
                weight,
                alone,
            });
        }
    }

    fn add(&mut self, pending: Pending) {
        self.bytes += pending.weight;
        self.callers += usize::from(pending.has_caller());
        self.in_turn += usize::from(pending.alone.is_some());
        self.pending.push_back(pending);
    }

    /// Drops the events that must not be written any more, since their source delivers them again.
    pub fn drop_closed(&mut self) {
        let flushing = std::mem::take(&mut self.flushing);
        (self.bytes, self.callers, self.in_turn) = (0, 0, 0);
        for (index, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if pending.delivery.ticket.is_open() {
                self.flushing += usize::from(index < flushing);
                self.add(pending);
            }
        }
        for group in &mut self.suspects {
            group.retain(|delivery| delivery.ticket.is_open());
        }
        self.suspects.retain(|group| !group.is_empty());
    }

    /// `batch.linger`.
    pub fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Replaces the settings; they hold for the events that are here too.
    pub fn reconfigure(&mut self, settings: BatchSettings) {
        self.settings = settings;
    }

    /// Makes every event due, now and later.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Makes the events that are here due.
    pub fn flush(&mut self) {
        self.flushing = self.pending.len();
        self.flush_trigger = Trigger::Drain;
    }

    /// Makes the events that are here due, since their source delivers no more before they are
    /// settled.
    pub fn window_spent(&mut self) {
        self.flushing = self.pending.len();
        self.flush_trigger = Trigger::Window;
    }

    /// Counts the bad rows of a batch that was written; returns the new limit of rows when they
    /// reduce it.
    pub fn batch_written(&mut self, bad_rows: usize) -> Option<usize> {
        self.limit
            .batch_written(bad_rows, self.settings.max_rows, Instant::now())
    }

    /// Why a batch is due, if one is.
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
        if self.pending.len() >= self.settings.max_events.min(self.row_limit()) {
            return Some(Trigger::Size);
        }
        if self.bytes >= self.max_bytes() {
            return Some(Trigger::Bytes);
        }
        if self.draining {
            return Some(Trigger::Drain);
        }
        if self.flushing > 0 {
            return Some(self.flush_trigger);
        }
        if oldest.since.elapsed() >= self.settings.max_wait {
            return Some(Trigger::Time);
        }
        // A group that is written alone in its turn does not wait for those before it.
        if self.callers > 0 || self.in_turn > 0 || self.holds_awaited() {
            return Some(Trigger::Idle);
        }
        None
    }

    /// How long the oldest event may still wait; `None` when the batch is empty.
    pub fn time_left(&self) -> Option<Duration> {
        let oldest = self.pending.front()?;
        Some(
            self.settings
                .max_wait
                .saturating_sub(oldest.since.elapsed()),
        )
    }

    /// Takes out a batch: a group that is written alone, else the oldest events up to the row limit
    /// and `batch.max_bytes`.
    pub fn cut(&mut self, trigger: Trigger) -> Batch {
        self.last_alone = trigger == Trigger::Alone;
        if trigger == Trigger::Alone
            && let Some(group) = self.suspects.pop_front()
        {
            return Batch::new(group, trigger);
        }
        let (mut bytes, mut events) = (0, 0);
        let group = self.pending.front().and_then(|oldest| oldest.alone);
        // A group that is written alone is not divided.
        let bound = group.map_or(self.row_limit(), |_| usize::MAX);
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
            self.in_turn = self.in_turn.saturating_sub(events);
        }
        let cut = self.pending.iter().take(events);
        let callers = cut.filter(|pending| pending.has_caller()).count();
        self.callers = self.callers.saturating_sub(callers);
        let cut = self.pending.drain(..events);
        let deliveries: Vec<Delivery> = cut.map(|pending| pending.delivery).collect();
        Batch::new(deliveries, trigger)
    }

    fn row_limit(&self) -> usize {
        self.limit.rows(self.settings.max_rows, Instant::now())
    }

    fn max_bytes(&self) -> usize {
        usize::try_from(self.settings.max_bytes.as_u64()).unwrap_or(usize::MAX)
    }

    fn holds_awaited(&self) -> bool {
        !self.read_waiters.is_empty()
            && self
                .pending
                .iter()
                .any(|pending| self.read_waiters.contains(&pending.delivery.event.event_id))
    }
}

impl Pending {
    fn has_caller(&self) -> bool {
        self.delivery.ticket.caller_mode() == CallerMode::Caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{deliveries, event};
    use crate::event::{Origin, Outcome, Ticket};
    use bytesize::ByteSize;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn open(max_events: usize, max_bytes: u64, max_wait: Duration) -> OpenBatch {
        let settings = BatchSettings {
            max_events,
            max_rows: max_events,
            max_bytes: ByteSize::b(max_bytes),
            max_wait,
            linger: Duration::ZERO,
            writers: 1,
        };
        OpenBatch::new(settings, ReadWaiters::default())
    }

    fn alone(mode: PushMode, count: usize) -> Group {
        Group {
            mode,
            deliveries: deliveries(count, CallerMode::Queue),
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn size_bytes_and_time_make_a_batch_due() {
        let mut batch = open(3, 1_000_000, HOUR);
        assert_eq!(batch.due(), None);
        batch.push(deliveries(2, CallerMode::Queue));
        assert_eq!(batch.due(), None);
        assert!(batch.time_left().unwrap() > HOUR / 2);
        batch.push(deliveries(2, CallerMode::Queue));
        assert_eq!(batch.due(), Some(Trigger::Size));
        assert_eq!(batch.cut(Trigger::Size).len(), 3);
        assert_eq!(batch.due(), None);

        let mut batch = open(100, 500, HOUR);
        batch.push(deliveries(4, CallerMode::Queue));
        assert_eq!(batch.due(), Some(Trigger::Bytes));
        assert_eq!(batch.cut(Trigger::Bytes).len(), 2, "within the bytes");
        assert_eq!(batch.cut(Trigger::Bytes).len(), 2);

        let mut batch = open(100, 500, Duration::ZERO);
        batch.push(deliveries(1, CallerMode::Queue));
        assert_eq!(batch.due(), Some(Trigger::Time));
    }

    #[test]
    fn callers_readers_and_a_drain_do_not_wait() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.push(deliveries(1, CallerMode::Queue));
        batch.push(deliveries(1, CallerMode::Caller));
        assert_eq!(batch.due(), Some(Trigger::Idle));
        assert_eq!(batch.cut(Trigger::Idle).len(), 2);
        batch.push(deliveries(1, CallerMode::Queue));
        assert_eq!(batch.due(), None, "the caller's event has left");

        let mut event = deliveries(1, CallerMode::Queue);
        let waiting = batch.read_waiters.wait_for(event[0].event.event_id);
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
        batch.push(deliveries(5, CallerMode::Queue));
        batch.push_group(alone(PushMode::AloneFirst, 3));
        batch.push_group(alone(PushMode::AloneFirst, 1));
        assert_eq!(batch.due(), Some(Trigger::Alone));
        assert_eq!(batch.cut(Trigger::Alone).len(), 3);
        assert_eq!(
            batch.due(),
            Some(Trigger::Size),
            "an ordinary batch goes between"
        );
        assert_eq!(batch.cut(Trigger::Size).len(), 2);
        assert_eq!(batch.due(), Some(Trigger::Alone));
        assert_eq!(batch.cut(Trigger::Alone).len(), 1);
        assert_eq!(batch.due(), Some(Trigger::Size));
        assert_eq!(batch.emptied().due(), None);
    }

    #[test]
    fn in_turn_they_go_alone_and_keep_their_place() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.push(deliveries(2, CallerMode::Queue));
        batch.push_group(alone(PushMode::AloneInTurn, 3));
        batch.push_group(alone(PushMode::AloneInTurn, 1));
        batch.push(deliveries(4, CallerMode::Queue));
        let mut cut = Vec::new();
        while let Some(trigger) = batch.due() {
            cut.push((trigger, batch.cut(trigger).len()));
        }
        let expected = [(Trigger::Idle, 2), (Trigger::Alone, 3), (Trigger::Alone, 1)];
        assert_eq!(cut, expected);
        assert_eq!(batch.pending.len(), 4, "an ordinary batch, which may wait");
    }

    #[test]
    fn max_events_make_it_due_and_max_rows_bound_it() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.settings.max_rows = 250;
        batch.push(deliveries(99, CallerMode::Queue));
        assert_eq!(batch.due(), None);
        batch.push(deliveries(401, CallerMode::Queue));
        let mut cut = Vec::new();
        while let Some(trigger) = batch.due() {
            cut.push((trigger, batch.cut(trigger).len()));
        }
        assert_eq!(cut, [(Trigger::Size, 250), (Trigger::Size, 250)]);

        batch.settings.max_rows = 2_000;
        batch.settings.max_events = 1_000;
        assert_eq!(batch.batch_written(8), Some(1_000));
        assert_eq!(batch.batch_written(8), Some(500));
        batch.push(deliveries(700, CallerMode::Queue));
        assert_eq!(batch.due(), Some(Trigger::Size), "due at the reduced limit");
        assert_eq!(batch.cut(Trigger::Size).len(), 500);
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn with_the_window_spent_what_is_here_is_due_and_what_follows_is_not() {
        let mut batch = open(100, 1_000_000, HOUR);
        batch.push(deliveries(3, CallerMode::Queue));
        assert_eq!(batch.due(), None);
        batch.window_spent();
        assert_eq!(batch.due(), Some(Trigger::Window));
        assert_eq!(batch.cut(Trigger::Window).len(), 3);
        batch.push(deliveries(1, CallerMode::Queue));
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn only_events_of_closed_sources_are_dropped() {
        struct Channel(AtomicBool);
        impl Origin for Channel {
            fn settle(&self, _: u64, _: Outcome) {}
            fn caller_mode(&self) -> CallerMode {
                CallerMode::Queue
            }
            fn is_open(&self) -> bool {
                self.0.load(Ordering::Relaxed)
            }
        }
        let channel = Arc::new(Channel(AtomicBool::new(true)));
        let mut batch = open(100, 1_000_000, HOUR);
        let mut push = |mode| {
            let deliveries =
                (0..2).map(|slot| Delivery::new(event(), Ticket::new(channel.clone(), slot)));
            batch.push_group(Group {
                mode,
                deliveries: deliveries.collect(),
            });
            batch.push(deliveries_of_callers(1));
        };
        push(PushMode::Shared);
        push(PushMode::AloneFirst);
        push(PushMode::AloneInTurn);
        batch.flush();
        batch.drop_closed();
        assert_eq!(
            (batch.pending.len(), batch.flushing, batch.suspects.len()),
            (7, 7, 1)
        );
        channel.0.store(false, Ordering::Relaxed);
        batch.drop_closed();
        assert_eq!(
            (batch.pending.len(), batch.flushing, batch.suspects.len()),
            (3, 3, 0)
        );
        assert_eq!((batch.callers, batch.in_turn), (3, 0));
        assert_eq!(batch.cut(Trigger::Drain).len(), 3);
        assert_eq!((batch.bytes, batch.callers), (0, 0));
    }

    fn deliveries_of_callers(count: usize) -> Vec<Delivery> {
        deliveries(count, CallerMode::Caller)
    }
}

//! The events of a lane that are read, and behind which its position has not moved yet.

use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
enum SlotState {
    /// Not started.
    Waiting(Arc<StoredEvent>),
    /// Started, or decided and not stored yet.
    Undecided,
    Stored,
}

#[derive(Debug)]
struct Slot {
    position: Position,
    key: Option<String>,
    state: SlotState,
}

/// What waits, what is under way, and what is stored behind something that is not.
#[derive(Debug)]
pub(super) struct Window {
    /// By position.
    slots: VecDeque<Slot>,
    /// All up to here is in the window, or does not concern the lane.
    read_to: Position,
    /// What may be started: of each order key the first.
    ready: BTreeSet<Position>,
    waiting: usize,
    /// Of each order key, those behind the one that is ready or under way.
    lines: HashMap<String, VecDeque<Position>>,
    /// How many slots with this key are not stored.
    open_keys: HashMap<String, usize>,
    is_ordered: bool,
}

impl Window {
    pub(super) fn new(from: Position, is_ordered: bool) -> Self {
        Self {
            slots: VecDeque::new(),
            read_to: from,
            ready: BTreeSet::new(),
            waiting: 0,
            lines: HashMap::new(),
            open_keys: HashMap::new(),
            is_ordered,
        }
    }

    pub(super) fn read_to(&self) -> Position {
        self.read_to
    }

    /// A read has ended here.
    pub(super) fn read(&mut self, to: Position) {
        self.read_to = self.read_to.max(to);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots that are not started.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether a slot with this key is not stored yet.
    pub(super) fn is_open(&self, key: &str) -> bool {
        self.open_keys.contains_key(key)
    }

    /// Behind everything that is stored without a gap.
    pub(super) fn low(&self) -> Position {
        match self.slots.front() {
            Some(first) => Position(first.position.0.saturating_sub(1)),
            None => self.read_to,
        }
    }

    /// The same as soon as these are stored too.
    pub(super) fn low_behind(&self, stored: &HashSet<Position>) -> Position {
        let open = |slot: &&Slot| {
            !matches!(slot.state, SlotState::Stored) && !stored.contains(&slot.position)
        };
        match self.slots.iter().find(open) {
            Some(first) => Position(first.position.0.saturating_sub(1)),
            None => self.read_to,
        }
    }

    /// Adds an event that is to be started. Positions must grow.
    pub(super) fn wait(
        &mut self,
        position: Position,
        key: Option<String>,
        event: Arc<StoredEvent>,
    ) {
        self.waiting += 1;
        match &key {
            Some(key) if self.is_ordered && self.open_keys.contains_key(key) => {
                self.lines
                    .entry(key.clone())
                    .or_default()
                    .push_back(position);
            }
            _ => {
                self.ready.insert(position);
            }
        }
        self.push(position, key, SlotState::Waiting(event));
    }

    /// Adds an event that is decided without a start.
    pub(super) fn decide(&mut self, position: Position, key: Option<String>) {
        self.push(position, key, SlotState::Undecided);
    }

    fn push(&mut self, position: Position, key: Option<String>, state: SlotState) {
        if let Some(key) = &key {
            *self.open_keys.entry(key.clone()).or_default() += 1;
        }
        self.slots.push_back(Slot {
            position,
            key,
            state,
        });
    }

    /// Takes the first event that may be started.
    pub(super) fn start(&mut self) -> Option<(Position, Arc<StoredEvent>)> {
        let position = self.ready.pop_first()?;
        let slot = self.slot(position)?;
        match std::mem::replace(&mut slot.state, SlotState::Undecided) {
            SlotState::Waiting(event) => {
                self.waiting = self.waiting.saturating_sub(1);
                Some((position, event))
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Gives an event back that was not started after all.
    pub(super) fn not_started(&mut self, position: Position, event: Arc<StoredEvent>) {
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Waiting(event);
            self.ready.insert(position);
            self.waiting += 1;
        }
    }

    /// Takes the events of these keys that are not started, by position: they are decided by that.
    pub(super) fn take_waiting(
        &mut self,
        keys: &HashSet<String>,
    ) -> Vec<(Position, String, Arc<StoredEvent>)> {
        let mut taken = Vec::new();
        if !keys.iter().any(|key| self.is_open(key)) {
            return taken;
        }
        for slot in &mut self.slots {
            let Some(key) = slot.key.as_ref().filter(|key| keys.contains(*key)) else {
                continue;
            };
            if let SlotState::Waiting(event) = &slot.state {
                taken.push((slot.position, key.clone(), Arc::clone(event)));
                slot.state = SlotState::Undecided;
            }
        }
        for (position, key, _) in &taken {
            self.ready.remove(position);
            self.lines.remove(key);
        }
        self.waiting = self.waiting.saturating_sub(taken.len());
        taken
    }

    /// The key of a slot.
    pub(super) fn key(&mut self, position: Position) -> Option<String> {
        self.slot(position)?.key.clone()
    }

    /// The outcome of a slot is stored. Returns the events of the same order key that must follow it into the queue,
    /// if it went there: they are decided by that.
    pub(super) fn stored(
        &mut self,
        position: Position,
        is_queued: bool,
    ) -> Vec<(Position, Arc<StoredEvent>)> {
        let mut following = Vec::new();
        let Some(slot) = self.slot(position) else {
            return following;
        };
        slot.state = SlotState::Stored;
        if let Some(key) = slot.key.clone() {
            let mut line = self.lines.remove(&key).unwrap_or_default();
            if is_queued {
                for position in line.drain(..) {
                    if let Some(slot) = self.slot(position)
                        && let SlotState::Waiting(event) =
                            std::mem::replace(&mut slot.state, SlotState::Undecided)
                    {
                        self.waiting = self.waiting.saturating_sub(1);
                        following.push((position, event));
                    }
                }
            }
            if let Some(next) = line.pop_front() {
                self.ready.insert(next);
                self.lines.insert(key.clone(), line);
            }
            if let Some(open) = self.open_keys.get_mut(&key) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    self.open_keys.remove(&key);
                }
            }
        }
        while let Some(Slot {
            state: SlotState::Stored,
            ..
        }) = self.slots.front()
        {
            self.slots.pop_front();
        }
        following
    }

    fn slot(&mut self, position: Position) -> Option<&mut Slot> {
        let at = self.slots.partition_point(|slot| slot.position < position);
        self.slots
            .get_mut(at)
            .filter(|slot| slot.position == position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Arc<StoredEvent> {
        let event = json!({
            "sequence": 1, "id": "01990000-0000-7000-8000-000000000000", "producer": "p", "eventType": "t",
            "eventData": {}, "timestamp": "2026-01-01T00:00:00Z", "receivedAt": "2026-01-01T00:00:00Z",
            "source": "http", "processed": false
        });
        Arc::new(serde_json::from_value(event).unwrap())
    }

    fn started(window: &mut Window) -> Vec<i64> {
        std::iter::from_fn(|| window.start().map(|(position, _)| position.0)).collect()
    }

    #[test]
    fn the_low_position_is_the_longest_finished_prefix() {
        let mut window = Window::new(Position(10), false);
        for position in [12, 15, 16] {
            window.wait(Position(position), None, event());
        }
        window.read(Position(20));
        assert_eq!((window.low(), window.waiting()), (Position(11), 3));
        assert_eq!(started(&mut window), [12, 15, 16]);
        window.stored(Position(15), false);
        assert_eq!((window.low(), window.len()), (Position(11), 3));
        window.stored(Position(12), false);
        assert_eq!((window.low(), window.len()), (Position(15), 1));
        window.not_started(Position(16), event());
        assert_eq!(started(&mut window), [16]);
        window.stored(Position(16), false);
        assert_eq!(window.low(), Position(20));
    }

    #[test]
    fn what_waits_of_a_key_is_taken() {
        let mut window = Window::new(Position::START, true);
        for (position, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "c")] {
            window.wait(Position(position), Some(key.to_owned()), event());
        }
        window.read(Position(5));
        assert_eq!(window.start().unwrap().0, Position(1));
        let keys = HashSet::from(["a", "b", "x"].map(str::to_owned));
        let taken = window.take_waiting(&keys);
        let taken: Vec<i64> = taken.iter().map(|(position, ..)| position.0).collect();
        assert_eq!((taken, window.waiting()), (vec![2, 3, 4], 1));
        assert!(window.is_open("a") && window.is_open("b"));
        assert_eq!(started(&mut window), [5]);
        for position in [1, 2, 4] {
            assert!(window.stored(Position(position), position > 1).is_empty());
        }
        assert!(!window.is_open("a") && window.is_open("b"));
    }

    #[test]
    fn one_key_at_a_time_and_all_of_it_follows_into_the_queue() {
        let mut window = Window::new(Position::START, true);
        for (position, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "b")] {
            window.wait(Position(position), Some(key.to_owned()), event());
        }
        window.read(Position(5));
        assert_eq!(started(&mut window), [1, 3]);
        assert!(window.stored(Position(1), false).is_empty());
        assert_eq!(started(&mut window), [2]);
        let following = window.stored(Position(2), true);
        assert_eq!(following.len(), 1);
        assert_eq!(following[0].0, Position(4));
        assert!(started(&mut window).is_empty() && window.is_open("a"));
        window.stored(Position(4), true);
        assert!(!window.is_open("a"));
        window.stored(Position(3), false);
        assert_eq!(started(&mut window), [5]);
        window.stored(Position(5), false);
        assert_eq!((window.low(), window.len()), (Position(5), 0));
    }
}

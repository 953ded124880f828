//! Runs that are not decided.

use crate::event::StoredEvent;
use crate::expression::InvalidExpression;
use crate::reactions::selection::Selection;
use crate::store::commit_log::{Position, Selection as LogSelection, Span};
use crate::store::followers::FollowerRecord;
use crate::store::reactions::{ReactionRecord, parse_lane};
use crate::store::runs::Held;
use crate::store::{ErrorKind, Store, StoreError};
use std::collections::{HashSet, VecDeque};
use uuid::Uuid;

/// Positions of the first stretch that is searched; each further one may have twice as many.
const FIRST: i64 = 8_192;
/// Most events that one read gives.
const EVENTS: usize = 1_000;
/// Reads after which a stretch is too long.
const READS_OF_STRETCH: usize = 16;
/// Reads of one search.
const READS: usize = 64;

/// The events of a reaction that are not decided.
pub(super) struct Undecided<'a> {
    store: &'a dyn Store,
    reaction: &'a ReactionRecord,
    /// The number and the position of each lane.
    lanes: Vec<(u32, Position)>,
}

/// What a search has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newest first.
    pub(super) events: Vec<(Position, Uuid)>,
    /// All that lies behind this position was searched.
    pub(super) searched_to: Position,
}

/// A declaration that can be applied.
struct Declared {
    held: Held,
    selection: Selection,
}

impl<'a> Undecided<'a> {
    /// What was not decided when the record was read. An event that is decided later has a row that is read later.
    pub(super) fn new(store: &'a dyn Store, reaction: &'a ReactionRecord) -> Self {
        let lane = |lane: &FollowerRecord| {
            parse_lane(&lane.name).map(|(_, number)| (number, lane.position))
        };
        Self {
            store,
            reaction,
            lanes: reaction.lanes.iter().filter_map(lane).collect(),
        }
    }

    /// Everything up to here is decided.
    pub(super) fn low(&self) -> Position {
        let positions = self.lanes.iter().map(|(_, position)| *position);
        positions.min().unwrap_or(Position::MAX)
    }

    /// Whether an event has a run that its lane has not decided.
    pub(super) async fn has(
        &self,
        event: &StoredEvent,
        position: Position,
    ) -> Result<bool, StoreError> {
        if position <= self.low() {
            return Ok(false);
        }
        let declared = self.declared(position).await?;
        Ok(declared.is_some_and(|declared| self.is_undecided(&declared, event, position)))
    }

    /// The newest undecided events of a stretch, at most `limit`. The search ends early if it has read a lot.
    pub(super) async fn newest(
        &self,
        after: Position,
        until: Position,
        limit: usize,
    ) -> Result<Found, StoreError> {
        let floor = after.max(self.low());
        let begin = until.min(self.store.end().await?).max(floor);
        let mut found = Found {
            events: Vec::new(),
            searched_to: begin,
        };
        let (mut size, mut reads) = (FIRST, 0);
        while found.searched_to > floor && found.events.len() < limit {
            if reads >= READS && found.searched_to < begin {
                return Ok(found);
            }
            let top = found.searched_to;
            let Some(declared) = self.declared(top).await? else {
                break;
            };
            let bottom = Position(top.0.saturating_sub(size));
            let bottom = bottom.max(declared.held.from).max(floor);
            let left = limit - found.events.len();
            let reads_before = reads;
            match self
                .search(&declared, bottom, top, left, &mut reads)
                .await?
            {
                Some(events) => {
                    found.events.extend(events.into_iter().rev());
                    found.searched_to = bottom;
                    if reads - reads_before <= READS_OF_STRETCH / 2 {
                        size = size.saturating_mul(2);
                    }
                }
                None => size = ((top.0 - bottom.0) / 16).max(1),
            }
        }
        if found.events.len() < limit {
            found.searched_to = after;
        }
        Ok(found)
    }

    /// The last `limit` undecided events of a stretch of one declaration, by position; `None` if that takes too many
    /// reads.
    async fn search(
        &self,
        declared: &Declared,
        after: Position,
        until: Position,
        limit: usize,
        reads: &mut usize,
    ) -> Result<Option<VecDeque<(Position, Uuid)>>, StoreError> {
        let selection = LogSelection {
            types: declared.held.types.clone(),
            ..LogSelection::default()
        };
        let mut last = VecDeque::new();
        let mut read_to = after;
        for _ in 0..READS_OF_STRETCH {
            *reads += 1;
            let span = Span {
                until,
                ..Span::after(read_to, EVENTS)
            };
            let chunk = self.store.read_after(&selection, span).await?;
            let undecided = chunk
                .events
                .iter()
                .filter(|logged| self.is_undecided(declared, &logged.event, logged.position));
            let mut undecided: Vec<(Position, Uuid)> = undecided
                .map(|logged| (logged.position, logged.event.event_id))
                .collect();
            if let (Some((first, _)), Some((end, _))) = (undecided.first(), undecided.last()) {
                let before = Position(first.0.saturating_sub(1));
                let decided = self.store.decided(self.reaction.id, before, *end).await?;
                let decided: HashSet<Position> = decided.into_iter().collect();
                undecided.retain(|(position, _)| !decided.contains(position));
            }
            last.extend(undecided);
            last.drain(..last.len().saturating_sub(limit));
            if chunk.read_to >= until {
                return Ok(Some(last));
            }
            read_to = chunk.read_to;
        }
        Ok(None)
    }

    /// What holds at a position.
    async fn declared(&self, position: Position) -> Result<Option<Declared>, StoreError> {
        let held = self.store.held_at(&self.reaction.name, position).await?;
        held.map(|held| {
            let selection = Selection::new(&held.spec).map_err(unreadable)?;
            Ok(Declared { held, selection })
        })
        .transpose()
    }

    /// Whether an event has a run, and its lane has not passed it.
    fn is_undecided(&self, declared: &Declared, event: &StoredEvent, position: Position) -> bool {
        if !declared.held.types.matches(&event.event_type) {
            return false;
        }
        let key = declared.selection.key(event);
        let lane = declared.selection.lane(event, key.as_deref());
        let is_ahead = |(number, low): &(u32, Position)| *number == lane && *low < position;
        // A condition that cannot be evaluated makes a run that fails.
        self.lanes.iter().any(is_ahead) && declared.selection.selects(event).unwrap_or(true)
    }
}

/// A declaration of a later release.
pub(super) fn unreadable(invalid: InvalidExpression) -> StoreError {
    StoreError::new(ErrorKind::Operator, invalid.to_string())
}

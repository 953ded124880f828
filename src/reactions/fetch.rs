//! Reading what a lane is to decide.

use super::selection::Selection;
use crate::expression::ExpressionError;
use crate::followers::driver::LogAccess;
use crate::store::commit_log::{LoggedEvent, Position, Span, TypePatterns};
use crate::store::followers::FollowerState;
use crate::store::reactions::QueueKey;
use crate::store::{Store, StoreError};
use std::collections::HashSet;
use std::sync::Arc;

/// Most bytes of payloads that are read at a time, roughly.
const BYTES: usize = 1024 * 1024;

/// What a lane reads by.
pub(super) struct Source {
    pub(super) log: LogAccess,
    pub(super) store: Arc<dyn Store>,
    pub(super) selection: Selection,
    pub(super) types: TypePatterns,
    /// The lane's follower.
    pub(super) follower: String,
    pub(super) lane: u32,
    pub(super) reaction: i32,
    /// Of the record whose declaration this is.
    pub(super) revision: i64,
    /// Where that declaration ends.
    pub(super) until: Position,
    /// Which keys of the queue matter.
    pub(super) keys: Vec<QueueKey>,
}

/// An event of the lane.
pub(super) struct Candidate {
    pub(super) logged: LoggedEvent,
    pub(super) key: Option<String>,
    /// The condition cannot be evaluated.
    pub(super) error: Option<ExpressionError>,
}

/// What was read.
pub(super) struct Fetched {
    /// Which read it was.
    pub(super) number: u64,
    pub(super) candidates: Vec<Candidate>,
    pub(super) read_to: Position,
    /// Positions with a decision.
    pub(super) decided: HashSet<Position>,
    /// Keys with a run in the queue.
    pub(super) queued: HashSet<String>,
    /// The record is another one: nothing was read under its declaration.
    pub(super) changed: bool,
}

impl Source {
    /// Reads at most `limit` events of the log behind a position; none at all if there are none of these types up to
    /// `quiet_to`.
    pub(super) async fn fetch(
        self: Arc<Self>,
        number: u64,
        after: Position,
        limit: usize,
        quiet_to: Option<Position>,
    ) -> Result<Fetched, StoreError> {
        let span = Span {
            after,
            until: self.until,
            events: limit,
            bytes: BYTES,
        };
        let (events, read_to) = match quiet_to {
            Some(end) => (Vec::new(), end.min(self.until)),
            None => {
                let chunk = self.log.read(self.types.clone(), span).await?;
                (chunk.events, chunk.read_to)
            }
        };
        let candidates: Vec<Candidate> = events
            .into_iter()
            .filter_map(|logged| self.candidate(logged))
            .collect();
        let mut fetched = Fetched {
            number,
            read_to,
            decided: HashSet::new(),
            queued: HashSet::new(),
            changed: self.has_changed().await?,
            candidates,
        };
        if fetched.changed || fetched.candidates.is_empty() {
            return Ok(fetched);
        }
        let decided = self.store.decided(self.reaction, after, read_to).await?;
        fetched.decided = decided.into_iter().collect();
        let keys: HashSet<String> = fetched
            .candidates
            .iter()
            .filter_map(|candidate| candidate.key.clone())
            .collect();
        if !keys.is_empty() {
            let keys: Vec<String> = keys.into_iter().collect();
            for kind in &self.keys {
                let queued = self.store.queued_keys(self.reaction, *kind, &keys).await?;
                fetched.queued.extend(queued);
            }
        }
        Ok(fetched)
    }

    /// Whether the lane's record is another one. Asked behind each read: what was numbered after another declaration
    /// is seen after it too.
    async fn has_changed(&self) -> Result<bool, StoreError> {
        let record = self.store.follower(&self.follower).await?;
        Ok(record.is_none_or(|record| {
            record.revision != self.revision || record.state != FollowerState::Running
        }))
    }

    fn candidate(&self, logged: LoggedEvent) -> Option<Candidate> {
        let key = self.selection.key(&logged.event);
        if self.selection.lane(&logged.event, key.as_deref()) != self.lane {
            return None;
        }
        let error = match self.selection.selects(&logged.event) {
            Ok(false) => return None,
            Ok(true) => None,
            Err(error) => Some(error),
        };
        Some(Candidate { logged, key, error })
    }
}

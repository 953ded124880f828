//! Runs of reactions as they are looked at, and as commands change them.
//!
//! A run that is not decided yet has no row. It is known from the position of its event, the declaration that holds
//! there, and the position of its lane: see [`crate::reactions::runs`].

use super::StoreError;
use super::commit_log::{Position, TypePatterns};
use super::followers::{Commanded, LaneSpec};
use super::reactions::Attempt;
use crate::event::StoredEvent;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It is due and was not started.
    Available,
    /// It is due later and was not started.
    Scheduled,
    /// An attempt is claimed.
    Running,
    /// An attempt has failed, or was postponed or lost, and another one follows.
    Retryable,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunState {
    pub const ALL: [RunState; 7] = [
        RunState::Available,
        RunState::Scheduled,
        RunState::Running,
        RunState::Retryable,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Available => "available",
            RunState::Scheduled => "scheduled",
            RunState::Running => "running",
            RunState::Retryable => "retryable",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    /// The state that a word stands for.
    pub(super) fn parse(word: &str) -> Self {
        let is_it = |state: &RunState| state.as_str() == word;
        Self::ALL.into_iter().find(is_it).unwrap_or(Self::Available)
    }

    /// Whether the run goes on.
    pub fn is_open(self) -> bool {
        !matches!(
            self,
            RunState::Succeeded | RunState::Failed | RunState::Cancelled
        )
    }
}

/// A run that has a row.
#[derive(Debug, Clone)]
pub struct RunRecord {
    pub reaction: i32,
    pub position: Position,
    pub event_id: Uuid,
    pub state: RunState,
    /// Attempts that were made, with one that is claimed.
    pub attempts: u32,
    /// Of an open run: when it is due, or when its claim ends. `None` also for one that waits for an earlier run of
    /// its order key.
    pub due: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// How long the last attempt took.
    pub took: Option<Duration>,
    /// The process that has the claim, or that ended the run.
    pub worker: Option<String>,
    /// Why it failed or was cancelled.
    pub error: Option<String>,
    /// The attempts before the last one; of an open run all that have ended.
    pub history: Vec<Attempt>,
}

impl RunRecord {
    /// The history of an ended run with its last attempt, if that was one and did not succeed.
    pub(super) fn whole_history(&self) -> Vec<Attempt> {
        let mut history = self.history.clone();
        let before = history.last().map_or(0, |attempt| attempt.attempt);
        let is_attempt = match self.state {
            RunState::Failed => true,
            RunState::Cancelled => self.attempts > before,
            _ => false,
        };
        if is_attempt {
            history.push(Attempt {
                attempt: self.attempts,
                at: self.finished_at.unwrap_or_default(),
                worker: self.worker.clone().unwrap_or_default(),
                error: self.error.clone().unwrap_or_default(),
                duration_ms: self.took.map(|took| took.as_secs_f64() * 1_000.0),
            });
        }
        history
    }
}

/// Which runs to list.
#[derive(Debug, Clone)]
pub struct RunFilter {
    pub reaction: i32,
    /// Only runs in one of these states.
    pub states: Vec<RunState>,
    /// Only positions behind this one.
    pub after: Position,
    /// Only positions up to this one.
    pub until: Position,
}

/// Which end of the log a list begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOrder {
    Oldest,
    Newest,
}

/// How many runs of a reaction there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCounts {
    pub reaction: i32,
    /// Since the reaction was declared.
    pub succeeded: u64,
    /// Those that the retention has left.
    pub failed: u64,
    pub cancelled: u64,
    /// In the queue; runs that are not decided yet are not counted.
    pub queued: u64,
}

/// What held of a reaction at a position.
#[derive(Debug, Clone)]
pub struct Held {
    /// It holds behind this position.
    pub from: Position,
    pub types: TypePatterns,
    pub spec: LaneSpec,
}

/// A run that is to be made again.
#[derive(Debug, Clone)]
pub struct ReopenedRun {
    pub position: Position,
    pub event: StoredEvent,
    pub order_key: Option<String>,
    pub unique_key: Option<String>,
    /// When it is due; one with an order key waits for earlier ones of its key besides.
    pub after: Duration,
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelledRun {
    Done,
    /// An attempt is claimed.
    Running,
    /// It has ended before, in this state.
    Ended(RunState),
}

/// Lists, counts and changes runs.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// How many runs each reaction has. Takes the time of the runs that did not succeed.
    async fn run_counts(&self) -> Result<Vec<RunCounts>, StoreError>;

    /// Runs that have a row, by position, at most `limit`.
    async fn list_runs(
        &self,
        filter: &RunFilter,
        order: RunOrder,
        limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError>;

    /// The runs of an event that have a row.
    async fn runs_of(&self, event_id: Uuid) -> Result<Vec<RunRecord>, StoreError>;

    /// The position of an event of the log; `None` if the log does not have it, or it has no number yet.
    async fn position_of(&self, event_id: Uuid) -> Result<Option<Position>, StoreError>;

    /// The last position of what the log had taken in before a time, by the database's clock. Behind it is what came
    /// later.
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError>;

    /// What a reaction reacted to at a position; `None` if it was declared behind it.
    async fn held_at(&self, reaction: &str, position: Position)
    -> Result<Option<Held>, StoreError>;

    /// The events of these ids that the log still has.
    async fn events_of(&self, ids: &[Uuid]) -> Result<Vec<StoredEvent>, StoreError>;

    /// Pauses a reaction, or has it go on.
    async fn pause_reaction(&self, name: &str, paused: bool) -> Result<Commanded, StoreError>;

    /// Forgets a reaction with its queue, once no process runs its lanes. Its events count as processed without it; those
    /// that it has not decided yet are marked with the others of their stretch of the log, as long as a process runs
    /// another reaction.
    async fn remove_reaction(&self, name: &str) -> Result<Commanded, StoreError>;

    /// Cancels a run that was not started or waits for its next attempt.
    async fn cancel_run(
        &self,
        reaction: i32,
        position: Position,
        event_id: Uuid,
        reason: &str,
    ) -> Result<CancelledRun, StoreError>;

    /// Puts ended runs into the queue again, for as many attempts as a new one has; those that are open or gone are
    /// left alone. One with a key is claimed when the lane of the key has released it, see
    /// [`FirstOutcomes`](super::reactions::FirstOutcomes). Returns how many are open now.
    async fn reopen_runs(&self, reaction: i32, runs: Vec<ReopenedRun>) -> Result<u64, StoreError>;
}

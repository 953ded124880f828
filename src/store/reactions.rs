//! What the store knows of reactions: their runs, and the queue of those that are due later.
//!
//! A run exists if its event does and a declaration of the reaction held at the event's position. It has a row as
//! soon as its first attempt is decided; the row is unique by reaction and position, so of two attempts that
//! believe to be the first, one decides. A run that ends with its first attempt costs that row alone. Any
//! other is `open`, and the queue has it until it ends: claimed for a time, under a token that every later
//! write checks.

use super::StoreError;
use super::commit_log::{Position, TypePatterns};
use super::followers::{FollowerRecord, FollowerState, LaneSpec, Start};
use super::transaction::{Effect, EffectError, Transaction};
use crate::event::StoredEvent;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Most characters of an error that are kept.
pub const MAX_ERROR: usize = 1_000;
/// Most attempts whose history is kept; older ones are dropped.
pub const MAX_HISTORY: usize = 50;

/// The error of a claim that has run out.
pub(super) const LOST: &str =
    "no outcome: the process ended, or was stopped for longer than the claim";

/// The follower that a lane of a reaction is.
pub fn lane_name(reaction: &str, lane: u32) -> String {
    format!("{reaction}:{lane}")
}

/// The reaction and the lane that a follower's name stands for.
pub fn parse_lane(follower: &str) -> Option<(&str, u32)> {
    let (reaction, lane) = follower.rsplit_once(':')?;
    Some((reaction, lane.parse().ok()?))
}

/// What an application says of a reaction when it starts.
#[derive(Debug, Clone)]
pub struct ReactionDeclaration {
    pub name: String,
    pub types: TypePatterns,
    /// For a new reaction; an existing one goes on where it is.
    pub start: Start,
    pub spec: LaneSpec,
}

/// A reaction as the store has it.
#[derive(Debug, Clone)]
pub struct ReactionRecord {
    /// Another one when it was removed and declared again.
    pub id: i32,
    pub name: String,
    pub paused: bool,
    pub declared_at: DateTime<Utc>,
    /// By number; also those of earlier declarations.
    pub lanes: Vec<FollowerRecord>,
}

impl ReactionRecord {
    /// Why it cannot be paused, or cannot go on.
    pub(super) fn pause_refusal(&self, paused: bool) -> Option<String> {
        let name = &self.name;
        let stopped = |lane: &FollowerRecord| lane.state != FollowerState::Running;
        match paused {
            true if self.paused => Some(format!("reaction {name} is paused, and not running")),
            false if !self.paused && !self.lanes.iter().any(stopped) => {
                Some(format!("reaction {name} is running"))
            }
            _ => None,
        }
    }

    /// Why it cannot be removed.
    pub(super) fn removal_refusal(&self) -> Option<String> {
        let name = &self.name;
        let process = self.lanes.iter().find_map(|lane| lane.run_by.as_ref())?;
        Some(format!(
            "process {process} runs reaction {name}; stop every process that declares it first"
        ))
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Succeeded,
    Failed,
    Cancelled,
}

impl Ending {
    /// The word in the `state` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Succeeded => "succeeded",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
        }
    }
}

/// An attempt that did not end its run, or that ended it without success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// 1 for the first one.
    pub attempt: u32,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// The process that made it.
    pub worker: String,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
}

/// A run that ended with its first attempt, or without one.
#[derive(Debug, Clone)]
pub struct EndedRun {
    pub position: Position,
    pub event_id: Uuid,
    pub ending: Ending,
    /// 1, or 0 if it was never started.
    pub attempts: u32,
    pub took: Duration,
    pub error: Option<String>,
}

/// When a run of the queue is due. Times are the database's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Due {
    After(Duration),
    At(DateTime<Utc>),
}

/// A run that enters the queue.
#[derive(Debug, Clone)]
pub struct QueuedRun {
    pub position: Position,
    pub event: Arc<StoredEvent>,
    /// Runs of one key are made one after the other, by position.
    pub order_key: Option<String>,
    pub unique_key: Option<String>,
    pub due: Due,
    /// Attempts that were made.
    pub attempts: u32,
    /// It takes turns with others like it, because a process may have ended by it.
    pub alone: bool,
    pub history: Vec<Attempt>,
}

/// The decisions of a lane, which one step of its follower stores.
#[derive(Debug, Clone)]
pub struct FirstOutcomes {
    pub reaction: i32,
    /// This process.
    pub worker: Arc<str>,
    pub ended: Vec<EndedRun>,
    pub queued: Vec<QueuedRun>,
    /// Keys of which the lane has nothing under way: those of their runs that were opened again may be claimed.
    pub released: Vec<String>,
    /// How long to wait for a row that an open transaction has inserted, where that is possible. What is not had
    /// by then fails with an error that may pass.
    pub lock_timeout: Option<Duration>,
}

#[async_trait]
impl Effect for FirstOutcomes {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        match transaction {
            #[cfg(feature = "postgres")]
            Transaction::Postgres(connection) => {
                super::postgres::reaction_runs::record(connection, self).await?;
            }
            #[cfg(feature = "sqlite")]
            Transaction::Sqlite(connection) => {
                super::sqlite::reaction_runs::record(connection, self)?;
            }
        }
        Ok(())
    }
}

/// Up to where a reaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReactionPosition {
    /// Its events up to here are marked as processed, but for those that wait for another reaction or have an open
    /// or failed run.
    pub marked_to: Position,
    /// All lanes have decided what lies up to here: [`Position::MAX`] for a removed one, which has nothing to decide.
    pub decided_to: Position,
}

impl ReactionPosition {
    /// The columns of the view `reaction_positions`.
    pub(super) fn new((marked_to, decided_to): (i64, Option<i64>)) -> Self {
        Self {
            marked_to: Position(marked_to),
            decided_to: decided_to.map_or(Position::MAX, Position),
        }
    }
}

/// Marks the events of a stretch of the log as processed that are due. Each reaction that is marked up to a position in
/// the stretch is then marked up to its end, or as far as the reaction has decided. Of a commit that ends behind the
/// stretch none is marked yet.
///
/// An event is due if each reaction to its type has decided it and none of its runs is open or has failed. Each event
/// is looked at in the stretch of each reaction to its type, after that reaction has decided it. The last of these
/// looks finds that all have, since what was decided stays so: it marks the event, or finds an open or failed run, which
/// marks it itself when it ends. A run that ends while a reaction has still to decide the event leaves it to that
/// reaction's stretch.
#[derive(Debug, Clone, Copy)]
pub struct MarkProcessed {
    pub after: Position,
    pub until: Position,
}

#[async_trait]
impl Effect for MarkProcessed {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        match transaction {
            #[cfg(feature = "postgres")]
            Transaction::Postgres(connection) => {
                super::postgres::processed::mark(connection, *self).await?;
            }
            #[cfg(feature = "sqlite")]
            Transaction::Sqlite(connection) => {
                super::sqlite::processed::mark(connection, *self)?;
            }
        }
        Ok(())
    }
}

/// What is to be claimed of the queue.
#[derive(Debug, Clone)]
pub struct Claim {
    pub reaction: i32,
    /// The one run that takes turns and is due longest, instead of those that do not.
    pub alone: bool,
    pub limit: usize,
    /// How long the claim holds.
    pub lease: Duration,
    pub worker: Arc<str>,
}

/// What was claimed, and what else there is.
#[derive(Debug, Default)]
pub struct Claimed {
    pub runs: Vec<ClaimedRun>,
    /// Until the next run is due that need not take turns; `None` if there is none.
    pub next: Option<Duration>,
    /// Until the next one is due that takes turns.
    pub next_alone: Option<Duration>,
    /// For how long the oldest of those has been due that are not claimed.
    pub overdue: Duration,
    /// Whether runs that were opened again wait for the lanes of their keys.
    pub reopened: bool,
}

/// A run that was opened again and waits for the lane of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReopenedKey {
    pub position: Position,
    pub key: String,
}

/// A claimed run.
#[derive(Debug, Clone)]
pub struct ClaimedRun {
    pub position: Position,
    pub event: StoredEvent,
    /// With the one that was claimed.
    pub attempts: u32,
    /// Of these, what does not count towards the most that are allowed.
    pub attempts_before: u32,
    pub token: i64,
}

/// What became of a claimed run.
#[derive(Debug, Clone)]
pub enum ClaimOutcome {
    Ended {
        ending: Ending,
        error: Option<String>,
    },
    /// It is due again.
    Again {
        after: Duration,
        error: String,
        /// The attempt does not count.
        unspent: bool,
    },
}

/// A claimed run with its outcome.
#[derive(Debug, Clone)]
pub struct FinishedClaim {
    pub position: Position,
    pub event_id: Uuid,
    pub token: i64,
    pub attempt: u32,
    pub took: Duration,
    pub outcome: ClaimOutcome,
}

/// Claimed runs with their outcomes, which are stored in one transaction.
#[derive(Debug, Clone)]
pub struct FinishedClaims {
    pub reaction: i32,
    /// This process.
    pub worker: Arc<str>,
    pub claims: Vec<FinishedClaim>,
    /// How long to wait for a lock that an open transaction has, where that is possible. What is not had by then
    /// fails with an error that may pass.
    pub lock_timeout: Duration,
}

/// A run that its handler completes in a transaction of its own.
#[derive(Debug, Clone)]
pub struct Completed {
    pub reaction: i32,
    pub position: Position,
    /// Of the claim; `None` for a first attempt.
    pub token: Option<i64>,
    pub event_id: Uuid,
    pub attempt: u32,
    pub worker: Arc<str>,
}

/// A key by which runs are ordered or unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKey {
    Order,
    Unique,
}

/// Keeps reactions, their runs and their queue.
#[async_trait]
pub trait ReactionStore: Send + Sync {
    /// Declares a reaction with its lanes; takes effect behind everything that is committed before. Returns whether
    /// anything has changed.
    async fn declare_reaction(&self, declaration: &ReactionDeclaration)
    -> Result<bool, StoreError>;

    /// The reaction of this name.
    async fn reaction(&self, name: &str) -> Result<Option<ReactionRecord>, StoreError>;

    /// All reactions, by name.
    async fn reactions(&self) -> Result<Vec<ReactionRecord>, StoreError>;

    /// Reads for which event types reactions are declared, so that events of these are written as not processed.
    /// Other processes declare reactions too: call it from time to time.
    async fn refresh_awaited(&self) -> Result<(), StoreError>;

    /// Where each reaction is, also those that were removed and still have events to be marked.
    async fn reaction_positions(&self) -> Result<Vec<ReactionPosition>, StoreError>;

    /// The positions behind `after`, up to `until`, whose run is decided.
    async fn decided(
        &self,
        reaction: i32,
        after: Position,
        until: Position,
    ) -> Result<Vec<Position>, StoreError>;

    /// Which of these keys has a run in the queue.
    async fn queued_keys(
        &self,
        reaction: i32,
        kind: QueueKey,
        keys: &[String],
    ) -> Result<Vec<String>, StoreError>;

    /// Runs that were opened again and wait for the lanes of their keys, by position behind `after`, at most `limit`.
    async fn reopened_keys(
        &self,
        reaction: i32,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ReopenedKey>, StoreError>;

    /// Claims runs that are due, of a reaction that is not paused. Each claim counts as an attempt.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError>;

    /// Stores what became of claimed runs. What another claim has taken over is left alone; returns how many were
    /// not.
    async fn finish(&self, finished: FinishedClaims) -> Result<u64, StoreError>;
}

/// An error as it is kept: of bounded length, and without zeros, which PostgreSQL refuses.
pub(crate) fn kept_error(error: &str) -> String {
    let mut kept: String = error.chars().take(MAX_ERROR).collect();
    if kept.contains('\0') {
        kept = kept.replace('\0', "\u{fffd}");
    }
    kept
}

/// The attempt of a claim that has run out.
pub(super) fn lost_attempt(attempts: i32, at: DateTime<Utc>, worker: String) -> Attempt {
    Attempt {
        attempt: attempts.unsigned_abs(),
        at,
        worker,
        error: LOST.to_owned(),
        duration_ms: None,
    }
}

/// The history as it is kept.
pub(super) fn kept_history(mut history: Vec<Attempt>) -> Vec<Attempt> {
    let dropped = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..dropped);
    history
}

//! What the store knows of the followers of the log: their declarations, positions and states.
//!
//! A follower's effect and its position change in one transaction, which also checks that the follower
//! still holds its lease and that its declaration is the one that it read with. Positions are appended:
//! of two processes that believe to hold the lease, one inserts the next number, and the other finds
//! it taken.

use super::StoreError;
use super::commit_log::{Position, TypePatterns};
use super::dead_letters::{DeadLetter, Replayed};
use super::leases::{Fenced, Lease};
use super::transaction::{Effect, EffectError};
use crate::config::start::DeclaredStart;
use crate::event::StoredEvent;
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::ops::Not;
use std::sync::Arc;
use uuid::Uuid;

/// Where a new follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first event that the log still has.
    Beginning,
    /// With what is committed after its declaration.
    Now,
}

impl From<DeclaredStart> for Start {
    fn from(start: DeclaredStart) -> Self {
        match start {
            DeclaredStart::Now => Start::Now,
            DeclaredStart::Beginning => Start::Beginning,
        }
    }
}

/// What happens when one event cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The follower stops before it, and is broken until it is resumed.
    Stop,
    /// The event becomes a dead letter of the follower, which goes on.
    DeadLetter,
}

impl OnError {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            OnError::Stop => "stop",
            OnError::DeadLetter => "dead_letter",
        }
    }

    pub(super) fn parse(word: &str) -> Self {
        match word {
            "dead_letter" => OnError::DeadLetter,
            _ => OnError::Stop,
        }
    }
}

/// Whether a follower moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowerState {
    Running,
    /// Stopped by command.
    Paused,
    /// Stopped at an event that it cannot apply.
    Broken,
    /// Stopped, because retention has removed events that it had not read.
    Gapped,
}

impl FollowerState {
    pub const ALL: [FollowerState; 4] = [
        FollowerState::Running,
        FollowerState::Paused,
        FollowerState::Broken,
        FollowerState::Gapped,
    ];

    /// The word in the `state` column and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FollowerState::Running => "running",
            FollowerState::Paused => "paused",
            FollowerState::Broken => "broken",
            FollowerState::Gapped => "gapped",
        }
    }

    pub(super) fn parse(word: &str) -> Self {
        match word {
            "running" => FollowerState::Running,
            "paused" => FollowerState::Paused,
            "gapped" => FollowerState::Gapped,
            _ => FollowerState::Broken,
        }
    }
}

/// How a follower's effect relates to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowerKind {
    /// Both change in one transaction: every event is applied exactly once.
    Transactional,
    /// As [`FollowerKind::Transactional`], but what was applied cannot be undone, so it is not rebuilt.
    Permanent,
    /// The position changes after the effect: every event is sent at least once.
    External,
    /// A lane of a reaction: the position changes behind what is decided.
    Reaction,
}

impl FollowerKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            FollowerKind::Transactional => "transactional",
            FollowerKind::Permanent => "permanent",
            FollowerKind::External => "external",
            FollowerKind::Reaction => "reaction",
        }
    }

    pub(super) fn parse(word: &str) -> Self {
        match word {
            "permanent" => FollowerKind::Permanent,
            "external" => FollowerKind::External,
            "reaction" => FollowerKind::Reaction,
            _ => FollowerKind::Transactional,
        }
    }
}

/// What an application says of a follower when it starts.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub name: String,
    pub kind: FollowerKind,
    pub types: TypePatterns,
    /// For a new follower; an existing one goes on where it is.
    pub start: Start,
    pub on_error: OnError,
}

/// A follower as the store has it.
#[derive(Debug, Clone)]
pub struct FollowerRecord {
    pub name: String,
    pub kind: FollowerKind,
    pub state: FollowerState,
    /// Why it is broken or gapped.
    pub reason: Option<String>,
    pub on_error: OnError,
    /// Grows with each change that a running follower must know of.
    pub revision: i64,
    /// A rebuild was asked for and has not begun.
    pub rebuild: bool,
    /// It is complete for events of this day and later; `None` if for all.
    pub complete_since: Option<NaiveDate>,
    /// The number of its position, from which the next one follows.
    pub n: i64,
    pub position: Position,
    /// When the position was stored.
    pub moved_at: DateTime<Utc>,
    /// What it subscribes to behind its position.
    pub types: TypePatterns,
    /// Where it begins to subscribe to something else.
    pub until: Position,
    /// Dead letters that it is to apply again.
    pub replays: u64,
    /// The process that holds its lease.
    pub run_by: Option<String>,
    /// Of a lane of a reaction.
    pub spec: Option<LaneSpec>,
    /// Of a lane: how many handlers may have been started for events behind the position.
    pub begun: u32,
}

/// By what the events of a reaction are selected, besides their types, and distributed to its lanes. As a
/// declaration it holds from a position on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSpec {
    pub lanes: u32,
    /// A condition on the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The text of an event by whose hash its lane is chosen; the event's id if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Runs of one key are made one after the other.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub ordered: bool,
    /// An event has no run while one of the same key is open.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub unique: bool,
}

impl FollowerRecord {
    /// The lease that it runs under.
    pub fn lease_name(&self) -> String {
        lease_name(&self.name)
    }

    /// Why a command cannot be carried out.
    pub(super) fn refusal(&self, command: FollowerCommand, log: &LogState) -> Option<String> {
        let name = &self.name;
        let generation = log.generation;
        if self.kind == FollowerKind::Reaction {
            let reaction = name
                .rsplit_once(':')
                .map_or(name.as_str(), |(reaction, _)| reaction);
            return Some(format!(
                "follower {name} is a lane of reaction {reaction}; give the command to the reaction \
                 (eclusa reactions)"
            ));
        }
        match command {
            FollowerCommand::Pause if self.state != FollowerState::Running => Some(format!(
                "follower {name} is {}, and not running",
                self.state.as_str()
            )),
            FollowerCommand::Resume if self.state == FollowerState::Running => {
                Some(format!("follower {name} is running"))
            }
            FollowerCommand::Rebuild { .. } if self.kind == FollowerKind::Permanent => {
                Some(format!(
                    "follower {name} is not rebuilt, since what it has applied cannot be undone; declare one with \
                 another name"
                ))
            }
            FollowerCommand::Rebuild {
                accept_truncated: false,
            } => log.complete_since.map(|day| {
                format!(
                    "the log is complete since {day} only; to rebuild {name} without the events of \
                     days before, accept a truncated log (--accept-truncated)"
                )
            }),
            FollowerCommand::Skip(to) if to < self.position => Some(format!(
                "follower {name} is at position {generation}-{} already, and a skip goes forward; to go back, \
                 rebuild it",
                self.position
            )),
            FollowerCommand::Skip(to) if to > log.end => Some(format!(
                "the log ends at position {generation}-{}; what comes behind it cannot be skipped",
                log.end
            )),
            FollowerCommand::Remove if self.kind == FollowerKind::Permanent => Some(format!(
                "follower {name} is not removed, since what it has applied cannot be undone: a new follower of this \
                 name would begin anew and apply it once more"
            )),
            FollowerCommand::Remove => self.run_by.as_ref().map(|process| {
                format!(
                    "process {process} runs follower {name}; stop every process that registers it \
                     first"
                )
            }),
            _ => None,
        }
    }
}

/// The log as a command finds it.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) generation: i64,
    pub(super) end: Position,
    pub(super) complete_since: Option<NaiveDate>,
}

/// The lease that a follower runs under.
pub fn lease_name(follower: &str) -> String {
    format!("follower {follower}")
}

/// A follower's next position, and what it depends on.
#[derive(Debug, Clone)]
pub struct Step {
    pub lease: Lease,
    pub follower: String,
    /// As in the record that the events were read by: the follower must be running, and not have changed since.
    /// `None` for a lane of a reaction, which checks this when it reads, and stores what it has begun in any case.
    pub revision: Option<i64>,
    /// The number of the position that is moved from.
    pub n: i64,
    pub to: Position,
    /// How many handlers may be started for events behind it; 0 for a follower that is no lane of a reaction.
    pub begun: u32,
    /// What happens beside.
    pub also: Also,
}

/// What else a step does.
#[derive(Debug, Clone)]
pub enum Also {
    Nothing,
    /// An event that cannot be applied becomes a dead letter.
    DeadLetter(Box<DeadLetter>),
    /// A rebuild begins.
    Rebuild,
    /// A replay is done.
    Replayed(Uuid),
    /// A replay has failed, and its letter is dead again.
    ReplayFailed(Box<DeadLetter>),
}

/// A dead letter's event that a follower is to apply again.
#[derive(Debug, Clone)]
pub struct PendingReplay {
    pub letter: Uuid,
    pub position: Position,
    pub event: StoredEvent,
}

/// What an operator may do to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowerCommand {
    /// Stop after the chunk in hand.
    Pause,
    /// Go on, from the same position. A gapped one goes on without what is gone.
    Resume,
    /// Begin again with the first event that the log still has.
    Rebuild {
        /// Also if the log no longer has all events.
        accept_truncated: bool,
    },
    /// Go on behind this position: events up to it are not applied.
    Skip(Position),
    /// Forget it. Its lease must be free.
    Remove,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commanded {
    Done,
    /// There is no follower of this name.
    Unknown,
    /// It cannot be done; the sentence says why and what to do.
    Refused(String),
}

/// Keeps declarations, positions and states of followers.
#[async_trait]
pub trait FollowerStore: Send + Sync {
    /// Declares a follower; takes effect behind everything that is committed before. Returns whether
    /// anything has changed.
    async fn declare(&self, declaration: &Declaration) -> Result<bool, StoreError>;

    /// The follower of this name.
    async fn follower(&self, name: &str) -> Result<Option<FollowerRecord>, StoreError>;

    /// All followers, by name.
    async fn followers(&self) -> Result<Vec<FollowerRecord>, StoreError>;

    /// Runs an effect and stores the new position in one transaction.
    ///
    /// `Lost` when the lease is another's, or when the record has changed since it was read: read it
    /// again. Nothing was done then.
    ///
    /// # Errors
    /// What the effect or the store failed with; nothing was done.
    async fn step(&self, step: Step, effect: Arc<dyn Effect>) -> Result<Fenced<()>, EffectError>;

    /// Stops a running follower with a reason. `false` when its record has changed, or the lease is another's.
    async fn stop_follower(
        &self,
        lease: &Lease,
        name: &str,
        revision: i64,
        state: FollowerState,
        reason: &str,
    ) -> Result<bool, StoreError>;

    /// Carries out a command.
    async fn command(&self, name: &str, command: FollowerCommand) -> Result<Commanded, StoreError>;

    /// The oldest replays that a follower has to do.
    async fn pending_replays(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<PendingReplay>, StoreError>;

    /// Hands dead letters with the cause `follower` to their followers and marks them as replayed.
    /// Those whose follower is gone stay as they are. Returns the ids of those that were handed over.
    async fn request_replays(&self, letters: &[Replayed]) -> Result<Vec<Uuid>, StoreError>;

    /// The day from which on the log is complete; `None` if all of it is there.
    async fn complete_since(&self) -> Result<Option<NaiveDate>, StoreError>;
}

//! Runs as operators see and change them, also those that have no row because they are not decided.
//!
//! Such a run is known from the position of its event: the declaration that holds there selects the event, and the
//! position of its lane lies before it. Its state is [`RunState::Available`].

mod commands;
mod listing;
mod lookup;
mod overview;
mod reprocess;
mod undecided;

use super::reaction::is_name;
use crate::event::id;
use crate::store::commit_log::Position;
use crate::store::runs::{RunRecord, RunState};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

pub use commands::cancel;
pub use listing::{RunPage, RunQuery, list};
pub use lookup::{find, of_event};
pub use overview::{ReactionOverview, overview, overviews};
pub use reprocess::{ReprocessCursor, Reprocessed, Reprocessing, reprocess};

/// What the state of a run amounts to; nothing for a cancelled one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    Success,
    Failed,
    /// It is not decided, or goes on.
    Pending,
}

impl RunStatus {
    pub const ALL: [RunStatus; 3] = [RunStatus::Success, RunStatus::Failed, RunStatus::Pending];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Success => "SUCCESS",
            RunStatus::Failed => "FAILED",
            RunStatus::Pending => "PENDING",
        }
    }

    /// The reverse of [`RunStatus::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        RunStatus::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
    }

    /// That of a run in this state.
    pub fn of(state: RunState) -> Option<Self> {
        match state {
            RunState::Succeeded => Some(RunStatus::Success),
            RunState::Failed => Some(RunStatus::Failed),
            RunState::Cancelled => None,
            RunState::Available | RunState::Scheduled | RunState::Running | RunState::Retryable => {
                Some(RunStatus::Pending)
            }
        }
    }

    /// The states that amount to it.
    pub fn states(self) -> impl Iterator<Item = RunState> {
        RunState::ALL
            .into_iter()
            .filter(move |state| RunStatus::of(*state) == Some(self))
    }
}

/// The name of a run: the id of its event, a dot, and the name of its reaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunId {
    pub event_id: Uuid,
    pub reaction: String,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event_id, self.reaction)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.').and_then(|(event, reaction)| {
            let event_id = id::canonical(event)?;
            is_name(reaction).then(|| Self {
                event_id,
                reaction: reaction.to_owned(),
            })
        });
        parts.ok_or_else(|| {
            format!(
                "{text:?} is not the id of a run; one is the id of the event, a dot and the name of the reaction, such \
                 as 019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11.welcome-mail"
            )
        })
    }
}

/// A run that has no row.
fn undecided_run(reaction: i32, position: Position, event_id: Uuid) -> RunRecord {
    RunRecord {
        reaction,
        position,
        event_id,
        state: RunState::Available,
        attempts: 0,
        due: None,
        finished_at: None,
        took: None,
        worker: None,
        error: None,
        history: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_one_has_a_status() {
        for state in RunState::ALL {
            let status = RunStatus::of(state);
            assert_eq!(status.is_none(), state == RunState::Cancelled);
            assert_eq!(status == Some(RunStatus::Pending), state.is_open());
        }
        assert_eq!(RunStatus::Pending.states().count(), 4);
        assert_eq!(RunStatus::parse("SUCCESS"), Some(RunStatus::Success));
        assert_eq!(RunStatus::parse("success"), None);
    }

    #[test]
    fn an_id_comes_back_from_its_text() {
        let id = RunId {
            event_id: Uuid::nil(),
            reaction: "a.b-c_1".to_owned(),
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            ".",
            "a.b",
            "00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-000000000000.",
            "00000000-0000-0000-0000-000000000000.a b",
            "00000000000000000000000000000000.a",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}

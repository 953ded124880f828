//! Followers as the API and the command line show them.

use crate::store::commit_log::Position;
use crate::store::followers::{FollowerKind, FollowerRecord, FollowerState, OnError};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A position as it is shown: the generation of the log, a dash, and the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsidePosition {
    pub generation: i64,
    pub position: Position,
}

impl OutsidePosition {
    pub fn new(generation: i64, position: Position) -> Self {
        Self {
            generation,
            position,
        }
    }
}

impl std::fmt::Display for OutsidePosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.generation, self.position)
    }
}

impl std::str::FromStr for OutsidePosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-');
        let numbers = parts.and_then(|(generation, position)| {
            Some((
                generation.parse::<u32>().ok()?,
                position.parse::<u64>().ok()?,
            ))
        });
        let read = numbers.and_then(|(generation, position)| {
            Some(Self::new(
                generation.into(),
                Position(i64::try_from(position).ok()?),
            ))
        });
        read.ok_or_else(|| {
            format!("{text:?} is no position; one looks like 1-8191, as `eclusa followers list` shows it")
        })
    }
}

/// What a follower has not read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Behind {
    /// Events behind its position, whatever their type; an estimate if there are many.
    pub events: u64,
    /// Seconds for which the oldest of them has been in the log.
    pub seconds: f64,
}

/// A follower of the log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Follower)]
pub struct FollowerView {
    #[schema(example = "by-type")]
    pub name: String,
    #[schema(value_type = KindWord)]
    pub kind: FollowerKind,
    #[schema(value_type = FollowerStateWord)]
    pub state: FollowerState,
    /// Why it is broken or gapped.
    #[schema(required)]
    pub reason: Option<String>,
    #[schema(value_type = OnErrorWord)]
    pub on_error: OnError,
    /// The event types that it subscribes to at its position; `*` stands for any characters.
    #[schema(example = json!(["order.*"]))]
    pub types: Vec<String>,
    #[schema(example = "1-8191")]
    pub position: String,
    /// When the position was stored.
    pub moved_at: DateTime<Utc>,
    pub behind: Behind,
    /// It is complete for events of this day and later; null if for all.
    #[schema(required)]
    pub complete_since: Option<NaiveDate>,
    /// Whether a rebuild was asked for and has not begun.
    pub rebuild_requested: bool,
    /// Dead letters that it is to apply again.
    pub replays: u64,
    /// The process that runs it; null if none does.
    #[schema(required)]
    pub run_by: Option<String>,
}

/// How a follower's effect relates to its position.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = FollowerKind)]
pub enum KindWord {
    Transactional,
    Permanent,
    External,
    /// A lane of a reaction.
    Reaction,
}

/// Whether a follower moves.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = FollowerState)]
pub enum FollowerStateWord {
    Running,
    Paused,
    Broken,
    Gapped,
}

/// What happens when one event cannot be applied.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", as = OnError)]
pub enum OnErrorWord {
    Stop,
    DeadLetter,
}

impl FollowerView {
    pub fn new(record: FollowerRecord, generation: i64, behind: Behind) -> Self {
        Self {
            types: record.types.to_vec(),
            position: OutsidePosition::new(generation, record.position).to_string(),
            name: record.name,
            kind: record.kind,
            state: record.state,
            reason: record.reason,
            on_error: record.on_error,
            moved_at: record.moved_at,
            behind,
            complete_since: record.complete_since,
            rebuild_requested: record.rebuild,
            replays: record.replays,
            run_by: record.run_by,
        }
    }
}

/// Where the log ends.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Log)]
pub struct LogView {
    /// Which history positions belong to. A position of another generation is refused with 410.
    pub generation: i64,
    #[schema(example = "1-8191")]
    pub end: String,
}

/// All followers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FollowerList {
    /// By name.
    pub followers: Vec<FollowerView>,
    pub log: LogView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_shown() {
        let shown = OutsidePosition::new(3, Position(8_191));
        assert_eq!(shown.to_string().parse(), Ok(shown));
        for text in [
            "",
            "8191",
            "1-",
            "-1",
            "1--1",
            "1-x",
            "1-9223372036854775808",
        ] {
            assert!(text.parse::<OutsidePosition>().is_err(), "{text}");
        }
    }
}

//! The log as its followers read it: in the order of commits.
//!
//! On PostgreSQL a commit gets its number after it is committed ([`CommitLog::number_commits`]), so that
//! a reader neither waits for an open transaction nor passes over one that commits late. On SQLite,
//! with one writer, the order of `id` is that order.

use super::{EventFilter, StoreError};
use crate::event::StoredEvent;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

/// Most commits that one [`CommitLog::number_commits`] numbers.
pub const ROUND: u32 = 50_000;

/// The place of an event in the log's order: the same for every reader, and never given twice.
///
/// On PostgreSQL the number of the commit times 4,096, plus the place within it; on SQLite the `id`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub i64);

impl Position {
    /// Before every event.
    pub const START: Self = Self(0);
    /// Behind every event.
    pub const MAX: Self = Self(i64::MAX);
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    pub position: Position,
    pub event: StoredEvent,
}

/// Event types, each with `*` for any characters: `order.*`, `*.failed`. None stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypePatterns {
    exact: Vec<String>,
    with_star: Vec<String>,
}

impl TypePatterns {
    /// All types that one of these matches; all types if there are none, or one is `*`.
    pub fn new<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        let mut patterns = Self::default();
        for pattern in types.into_iter().map(Into::into) {
            if pattern == "*" {
                return Self::default();
            }
            let kind = match pattern.contains('*') {
                true => &mut patterns.with_star,
                false => &mut patterns.exact,
            };
            kind.push(pattern);
        }
        patterns.exact.sort();
        patterns.exact.dedup();
        patterns.with_star.sort();
        patterns.with_star.dedup();
        patterns
    }

    /// Whether every type matches.
    pub fn is_all(&self) -> bool {
        self.exact.is_empty() && self.with_star.is_empty()
    }

    /// Whether this type is one of them.
    pub fn matches(&self, event_type: &str) -> bool {
        self.is_all()
            || self.exact.iter().any(|exact| exact == event_type)
            || self
                .with_star
                .iter()
                .any(|pattern| matches_pattern(pattern, event_type))
    }

    /// The patterns as they were given, in alphabetical order; `*` if all match.
    pub fn to_vec(&self) -> Vec<String> {
        if self.is_all() {
            return vec!["*".to_owned()];
        }
        let mut all: Vec<String> = self.exact.iter().chain(&self.with_star).cloned().collect();
        all.sort();
        all
    }

    /// The types without `*`.
    #[cfg(feature = "postgres")]
    pub(super) fn exact(&self) -> &[String] {
        &self.exact
    }

    /// The others, as SQL's `LIKE` spells them.
    #[cfg(feature = "postgres")]
    pub(super) fn as_like(&self) -> Vec<String> {
        self.with_star.iter().map(|pattern| like(pattern)).collect()
    }
}

/// A pattern as SQL's `LIKE` spells it.
#[cfg(feature = "postgres")]
pub(super) fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', character]),
            other => like.push(other),
        }
    }
    like
}

/// Whether a text is made of the pattern's parts, with anything where `*` stands.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.is_empty()
}

/// Which events a reader wants: those of these types that pass the filter.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub types: TypePatterns,
    pub filter: EventFilter,
}

/// Where a read begins and ends, and how much it may give.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Only events behind this position.
    pub after: Position,
    /// Only events up to this position.
    pub until: Position,
    /// Most events.
    pub events: usize,
    /// Most bytes of payloads, roughly; at least one event is given.
    pub bytes: usize,
}

impl Span {
    /// At most `events` events behind a position, and four megabytes.
    pub fn after(after: Position, events: usize) -> Self {
        Self {
            after,
            until: Position::MAX,
            events,
            bytes: 4 * 1024 * 1024,
        }
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Chunk {
    /// In the order of their positions.
    pub events: Vec<LoggedEvent>,
    /// All that was wanted up to here has been given.
    pub read_to: Position,
}

/// What the numbering found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// How many commits got their number; [`ROUND`] when there may be more.
    pub commits: u32,
    /// Behind the last numbered commit.
    pub end: Position,
    /// The database's number of the connection that was used.
    pub session: i32,
}

/// What waits for its number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Unnumbered {
    pub events: u64,
    /// For which the oldest commit has been waiting.
    pub seconds: f64,
}

/// A block up to which everything is numbered, but what these transactions have written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Horizon {
    pub block: i64,
    pub open: Vec<i64>,
}

/// Where the numbering looks for commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Above this horizon, unless one of its transactions has ended; everywhere if its block is 0.
    pub above: Horizon,
    /// One that holds after this look, if that finds fewer than [`ROUND`] commits.
    pub later: Option<Horizon>,
}

/// A stretch of the log and the event types in it.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Behind its last event.
    pub end: Position,
    pub types: Vec<String>,
}

/// What the processes of one database tell each other, so that none has to ask all the time.
#[derive(Debug, Default)]
pub struct Peers {
    /// This process has numbered commits, which the others are to be told.
    pub tell: Notify,
    /// Another process has numbered commits.
    pub told: Notify,
    /// A follower was changed by command.
    pub commanded: Notify,
}

/// Reads the log in the order of commits.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Gives what is committed its place in the order, at most [`ROUND`] commits.
    async fn number_commits(&self) -> Result<Numbered, StoreError>;

    /// The same with a look that may pass over what is known to have nothing new. Returns it without the
    /// transactions that have ended.
    async fn number_with(&self, look: Look) -> Result<(Numbered, Look), StoreError> {
        Ok((self.number_commits().await?, look))
    }

    /// What has been drawn and who may still write it; a [`Look`] takes it as `later`.
    async fn horizon(&self) -> Result<Horizon, StoreError> {
        Ok(Horizon::default())
    }

    /// Behind the last numbered commit.
    async fn end(&self) -> Result<Position, StoreError>;

    /// What is committed and has no number yet.
    async fn unnumbered(&self) -> Result<Unnumbered, StoreError> {
        Ok(Unnumbered::default())
    }

    /// Whether a follower of any process may be waiting for numbers.
    async fn is_followed(&self) -> Result<bool, StoreError>;

    /// The stretches behind a position, at most `limit`.
    async fn stretches(&self, after: Position, limit: usize) -> Result<Vec<Stretch>, StoreError>;

    /// The events of a selection within a span, by position. What does not match costs little; the
    /// answer may end before `until` without being full, so go on from `read_to` until it is reached.
    async fn read_after(&self, selection: &Selection, span: Span) -> Result<Chunk, StoreError>;

    /// How many events lie behind a position, whatever their type, roughly if there are many, and the
    /// seconds for which the oldest of them has been waiting.
    async fn backlog(&self, position: Position) -> Result<(u64, f64), StoreError>;

    /// Which history the positions belong to: another number when a position may mean another event
    /// than before, because the database was recovered to an earlier time or is another one.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Begins a new generation.
    async fn new_generation(&self) -> Result<i64, StoreError>;

    /// Exchanges news with the other processes until the connection fails. Never ends where there are
    /// no other processes.
    async fn exchange(&self, peers: Arc<Peers>) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_types() {
        let matches = |pattern: &str, text: &str| TypePatterns::new([pattern]).matches(text);
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("order.*", "order."),
            ("order.*", "order.paid"),
            ("*.failed", "a.b.failed"),
            ("a*b*c", "abc"),
            ("a*b*c", "a-b-b-c-c"),
            ("a**c", "ac"),
            ("*ab", "aab"),
            ("*b*", "abc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "b"),
            ("a", "ab"),
            ("order.*", "order"),
            ("order.*", "reorder.paid"),
            ("a*b*c", "acb"),
            ("ab*ba", "aba"),
            ("a_c", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(TypePatterns::new(["b", "*"]).is_all());
        assert_eq!(TypePatterns::new(["b*", "a", "a"]).to_vec(), ["a", "b*"]);
        assert_eq!(TypePatterns::default().to_vec(), ["*"]);
    }
}

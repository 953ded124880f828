//! The log as subscribers read it, and its event types.

use super::StoreError;
use super::commit_log::{Chunk, Position, Span, TypePatterns};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

/// Where the log ends, and what the retention has deleted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Behind the last numbered event.
    pub end: Position,
    /// The last position of which an event was deleted: behind it the log is complete.
    pub deleted_to: Position,
}

/// What a subscriber reads.
#[derive(Debug)]
pub struct TopicChunk {
    pub chunk: Chunk,
    /// Where the log ended before the read.
    pub end: Position,
    /// What was deleted until after the read: the chunk has everything behind that.
    pub deleted_to: Position,
}

/// Events of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeCount {
    pub event_type: String,
    pub events: u64,
    /// When the first one was received.
    pub first: DateTime<Utc>,
    /// When the last one was.
    pub last: DateTime<Utc>,
}

/// The event types of a stretch of the log.
#[derive(Debug, Default)]
pub struct CountedTypes {
    pub counts: Vec<TypeCount>,
    /// The stretch ends here; at the end of the log there is none, and this is where it was to begin.
    pub to: Position,
}

/// Reads the log for subscribers, apart from the followers.
#[async_trait]
pub trait TopicStore: Send + Sync {
    /// Where the log ends, and what is deleted.
    async fn log_bounds(&self) -> Result<LogBounds, StoreError>;

    /// As [`CommitLog::read_after`](super::CommitLog::read_after), with the bounds of the log.
    async fn read_topic(&self, types: &TypePatterns, span: Span) -> Result<TopicChunk, StoreError>;

    /// Counts the types of a stretch behind a position, of roughly so many events.
    async fn count_types(&self, after: Position, events: usize)
    -> Result<CountedTypes, StoreError>;
}

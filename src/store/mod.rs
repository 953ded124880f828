//! The event log and what stands beside it: traits by capability, and the two stores behind them.
//!
//! [`postgres`] and [`sqlite`] pass one contract test-suite (`tests/it/store_contract`).

mod awaited;
pub mod captures;
pub mod commit_log;
pub mod compatibility;
pub mod content;
pub mod dead_letters;
pub mod error;
pub mod followers;
pub mod leases;
#[cfg(feature = "postgres")]
pub mod postgres;
mod queries;
pub mod reactions;
pub mod record;
pub mod retention;
mod rows;
pub mod runs;
pub mod shard_layout;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod streams;
mod times;
pub mod topics;
pub mod transaction;

use crate::event::{Event, Lane, Rows, StoredEvent};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use leases::Fenced;
use uuid::Uuid;

pub use captures::CaptureStore;
pub use commit_log::CommitLog;
pub use dead_letters::DeadLetterStore;
pub use error::{ErrorKind, StoreError};
pub use followers::FollowerStore;
pub use leases::LeaseStore;
pub use reactions::ReactionStore;
pub use retention::RetentionStore;
pub use runs::RunStore;
pub use shard_layout::ShardLayoutStore;
pub use streams::StreamStore;
pub use topics::TopicStore;

/// What became of one row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOutcome {
    /// It is new, and committed.
    Stored,
    /// The log has an event of this id already, and the first one wins.
    Duplicate {
        /// The earlier event has other content.
        conflicting: bool,
    },
}

/// Which events a listing shows. Absent fields do not filter.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub user_id: Option<String>,
    pub event_type: Option<String>,
    pub session_id: Option<String>,
    /// Only what happened at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only what happened before this time.
    pub to: Option<DateTime<Utc>>,
}

/// One page of a listing, newest arrival first.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// Give this as `before` for the next page; `None` when there is none.
    pub next: Option<i64>,
}

/// Number of events under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The value of the field counted by; `None` where the event has none.
    pub key: Option<String>,
    /// How many events have it.
    pub events: u64,
}

impl Count {
    /// A row of the database.
    fn of((key, events): (Option<String>, i64)) -> Self {
        Self {
            key,
            events: events.unsigned_abs(),
        }
    }
}

/// The field that [`EventStore::count_by`] groups by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountBy {
    /// `event_type`.
    Type,
    /// `source`.
    Source,
    /// `user_id`.
    User,
}

/// The event log: append-only, unique by event id.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Writes the rows in one transaction and says of each what became of it, in the same order.
    /// Rows whose id the log already has are left as they are. Of two rows with the same id the
    /// first in the batch wins. `id`s follow the order of the rows.
    ///
    /// # Errors
    /// Nothing was written; the error's kind says why. After a lost connection during commit the
    /// outcome is unknown, which is why writing again must be, and is, safe.
    async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, StoreError>;

    /// As [`EventStore::write`], one write at a time under the same `lane`, whichever process it is
    /// in: `id`s are drawn only when the write before is committed. So a process that has lost its
    /// shard and does not know it yet cannot give a later event a lower `id`. Nothing is written when
    /// the lane has a fence and its lease is lost.
    ///
    /// # Errors
    /// As [`EventStore::write`].
    async fn write_in_lane(
        &self,
        rows: Rows,
        lane: &Lane,
    ) -> Result<Fenced<Vec<RowOutcome>>, StoreError> {
        // SQLite has one writer, in the one process that can have a lease.
        let _ = lane;
        self.write(rows).await.map(Fenced::Done)
    }

    /// The event of this id.
    async fn get(&self, event_id: Uuid) -> Result<Option<StoredEvent>, StoreError>;

    /// Events newest first, with an `id` below `before` if given, at most `limit`.
    async fn list(
        &self,
        filter: &EventFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Number of events by the values of a field, largest first.
    async fn count_by(
        &self,
        field: CountBy,
        filter: &EventFilter,
    ) -> Result<Vec<Count>, StoreError>;

    /// Whether the store answers, and can be written to as far as that shows without writing.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether rows like these can be written now, found out by a write that is rolled back: tells
    /// rows that fail from a store that cannot be written. `rows` name the partitions that must
    /// take a row, and `lane` the key of the lane whose turn it must get; without either, any write will do.
    ///
    /// # Errors
    /// Why nothing can be written.
    async fn write_probe(&self, rows: &[Event], lane: Option<i64>) -> Result<(), StoreError> {
        let _ = (rows, lane);
        self.ping().await
    }
}

/// A store with every capability. Routes and actors take the capability they need.
pub trait Store:
    EventStore
    + CommitLog
    + FollowerStore
    + ReactionStore
    + RunStore
    + DeadLetterStore
    + LeaseStore
    + RetentionStore
    + StreamStore
    + TopicStore
    + CaptureStore
{
}

impl<T> Store for T where
    T: EventStore
        + CommitLog
        + FollowerStore
        + ReactionStore
        + RunStore
        + DeadLetterStore
        + LeaseStore
        + RetentionStore
        + StreamStore
        + TopicStore
        + CaptureStore
{
}

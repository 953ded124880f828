//! The event log in one SQLite file, for a machine without servers.
//!
//! One thread writes (`writer`) and commits the commands of all callers in groups; queries run on
//! connections of their own (`readers`) and neither wait for it nor hold it up.

mod command;
mod captures;
mod commits;
mod complete;
mod connection;
mod dead_letters_read;
mod dead_letters_write;
mod follower_commands;
mod follower_records;
mod follower_steps;
mod followers;
mod leases;
mod migrate;
mod pix;
pub(super) mod processed;
mod reaction_commands;
mod reaction_queue;
pub(super) mod reaction_runs;
mod reactions;
mod reopened;
mod read;
mod readers;
mod record;
mod retention;
mod run_commands;
mod run_positions;
mod run_retention;
mod runs;
mod schema;
mod stream_calls;
mod stream_candidates;
pub(super) mod stream_messages;
mod streams;
mod topics;
mod write;
mod writer;

pub use complete::complete;
pub use migrate::migrate;
pub use record::record;

use super::compatibility::Schema;
use super::dead_letters::{
    DeadLetter, DeadLetterFilter, DeadLetterOrder, DeadLetterPosition, DeadLetterSummary, Replayed,
};
use super::{
    Count, CountBy, DeadLetterStore, EventFilter, EventStore, Page, RowOutcome, StoreError,
};
use crate::event::{Event, Rows, StoredEvent};
use async_trait::async_trait;
use readers::Readers;
use std::path::PathBuf;
use uuid::Uuid;
use writer::Writer;

/// Where the file is, and how much may be under way.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The file, on a local disk; `-wal` and `-shm` files appear beside it. Not `:memory:`.
    pub path: PathBuf,
    /// Queries that may run at the same time.
    pub read_connections: usize,
    /// Commands that may wait for the writer.
    pub queue_depth: usize,
}

impl SqliteOptions {
    /// Options with the defaults for everything but the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_connections: 4,
            queue_depth: 256,
        }
    }
}

/// The event log in one SQLite file.
///
/// Dropping it waits until what was handed in is committed and the file is closed; that takes as
/// long as the last commits.
pub struct SqliteStore {
    // Before the readers: the checkpoint at its end wants the file to itself.
    writer: Writer,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the file and checks that its schema is one this release can work on.
    ///
    /// # Errors
    /// `Operator` if the file is not there or cannot be written, or if the schema is missing, too
    /// old or too new.
    pub async fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        let readers = Readers::new(options.path.clone(), options.read_connections);
        let schema = readers.read(|c| Ok(migrate::read_schema(c)?)).await?;
        schema.ok_or_else(Schema::missing)?.check()?;
        let writer = Writer::start(options.path.clone(), options.queue_depth)?;
        Ok(Self { writer, readers })
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.writer
            .ask(rows.len(), move |c| write::insert(c, &rows))
            .await
    }

    async fn get(&self, event_id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        self.readers
            .read(move |connection| Ok(read::get(connection, event_id)?))
            .await
    }

    async fn list(
        &self,
        filter: &EventFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let filter = filter.clone();
        self.readers
            .read(move |connection| Ok(read::list(connection, &filter, before, limit)?))
            .await
    }

    async fn count_by(
        &self,
        field: CountBy,
        filter: &EventFilter,
    ) -> Result<Vec<Count>, StoreError> {
        let filter = filter.clone();
        self.readers
            .read(move |connection| Ok(read::count_by(connection, field, &filter)?))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.is_running() {
            return Err(writer::stopped());
        }
        let schema = self.readers.read(|c| Ok(migrate::read_schema(c)?)).await?;
        schema.map(|_| ()).ok_or_else(Schema::missing)
    }

    async fn write_probe(&self, _: &[Event], _: Option<i64>) -> Result<(), StoreError> {
        self.ping().await?;
        // Each command begins with the lock of the file, and this one does nothing with it.
        self.mark_replayed(Vec::new()).await
    }
}

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn insert(&self, letters: Vec<DeadLetter>) -> Result<u64, StoreError> {
        self.writer
            .ask(letters.len(), |c| dead_letters_write::insert(c, letters))
            .await
    }

    async fn get_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        self.readers
            .read(move |connection| Ok(dead_letters_read::get(connection, id)?))
            .await
    }

    async fn list_letters(
        &self,
        filter: &DeadLetterFilter,
        order: DeadLetterOrder,
        after: Option<DeadLetterPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetterSummary>, StoreError> {
        let filter = filter.clone();
        self.readers
            .read(move |connection| {
                Ok(dead_letters_read::list(
                    connection, &filter, order, after, limit,
                )?)
            })
            .await
    }

    async fn count_letters(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.readers
            .read(move |connection| Ok(dead_letters_read::count(connection, &filter)?))
            .await
    }

    async fn mark_replayed(&self, letters: Vec<Replayed>) -> Result<(), StoreError> {
        self.writer
            .ask(letters.len(), move |c| {
                dead_letters_write::mark_replayed(c, &letters)
            })
            .await
    }

    async fn purge_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.writer
            .ask(limit, move |c| dead_letters_write::purge(c, &filter, limit))
            .await
    }
}

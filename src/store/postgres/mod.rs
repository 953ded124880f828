//! The event log in PostgreSQL, 15 or later.
//!
//! Writes go through `tokio-postgres` (`write`), because their errors decide the fate of a batch
//! and diesel-async hides the SQLSTATE; queries go through diesel (`read`).

mod alone;
mod by_index;
mod captures;
mod commits;
mod complete;
mod dead_letters_read;
mod dead_letters_write;
mod follower_commands;
mod follower_letters;
mod follower_records;
mod follower_steps;
mod followers;
mod leases;
mod listen;
mod migrate;
mod options;
mod page_room;
mod partitions;
mod pix;
mod pool;
mod prepared;
pub(super) mod processed;
mod reaction_commands;
mod reaction_queue;
pub(super) mod reaction_runs;
mod reactions;
mod reopened;
mod read;
mod record;
mod removed_reactions;
mod retention;
mod run_commands;
mod run_positions;
mod run_retention;
mod runs;
mod schema;
mod shard_layout;
mod stream_calls;
mod stream_candidates;
pub(super) mod stream_messages;
mod streams;
mod tls;
mod topics;
mod transactions;
mod turns;
mod write;

pub use alone::connect_alone;
pub use complete::complete;
pub use migrate::migrate;
pub use options::PostgresOptions;
pub use record::record;
#[cfg(feature = "service")]
pub(crate) use tls::connector;

use super::awaited::AwaitedTypes;
use super::compatibility::Schema;
use super::dead_letters::{
    DeadLetter, DeadLetterFilter, DeadLetterOrder, DeadLetterPosition, DeadLetterSummary, Replayed,
};
use super::leases::Fenced;
use super::{
    CommitLog, Count, CountBy, DeadLetterStore, ErrorKind, EventFilter, EventStore, Page,
    ReactionStore, RetentionStore, RowOutcome, StoreError,
};
use crate::event::{Event, Lane, Rows, StoredEvent};
use async_trait::async_trait;
use partitions::Partitions;
use pool::Pools;
use std::time::Duration;
use turns::Turns;
use uuid::Uuid;
use write::Inserted;

/// Bytes of duplicates that one query compares with the log.
const COMPARED_BYTES: usize = 1 << 20;

/// The event log in PostgreSQL.
pub struct PostgresStore {
    pools: Pools,
    partitions: Partitions,
    awaited: AwaitedTypes,
    turns: Turns,
}

impl PostgresStore {
    /// Connects, checks that the schema is one this release can work on, and makes the partitions
    /// of today and the next thirty days.
    ///
    /// # Errors
    /// `Outage` if the server is not there, `Operator` if it refuses, if the URL cannot be read,
    /// or if the schema is missing, too old or too new.
    pub async fn connect(options: &PostgresOptions) -> Result<Self, StoreError> {
        let store = Self {
            pools: Pools::new(options)?,
            partitions: Partitions::default(),
            awaited: AwaitedTypes::default(),
            turns: Turns::default(),
        };
        store.check_schema().await?;
        store.refresh_awaited().await?;
        // Before anything is written: it also sets the sequences above what is stored.
        if let Err(error) = CommitLog::generation(&store).await {
            tracing::warn!(%error, "the generation of the log could not be checked");
        }
        store.prepare_days().await?;
        // A connection is driven by the thread that made it: the writers make their own.
        store.pools.close_idle();
        Ok(store)
    }

    /// Whether the schema is one this release can work on.
    ///
    /// # Errors
    /// `Operator` with what to do if it is missing, too old or too new.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let schema = self.pools.read(migrate::read_schema).await?;
        schema.ok_or_else(Schema::missing)?.check()
    }

    async fn insert(
        &self,
        rows: Rows,
        lane: Option<&Lane>,
    ) -> Result<Fenced<Vec<RowOutcome>>, StoreError> {
        if rows.is_empty() {
            return Ok(Fenced::Done(Vec::new()));
        }
        let written = self
            .pools
            .write(async |client| {
                match write::insert(client, &self.partitions, &self.awaited, &rows, lane).await {
                    Err(error) => Err(write::explained(client, error).await),
                    result => result,
                }
            })
            .await?;
        let mut new = match written {
            Inserted::All => return Ok(Fenced::Done(vec![RowOutcome::Stored; rows.len()])),
            Inserted::Some(new) => new,
            Inserted::Lost => return Ok(Fenced::Lost),
        };
        // Of equal ids within the batch the first row is the stored one.
        let mut outcomes: Vec<RowOutcome> = rows
            .iter()
            .map(|event| match new.remove(&event.event_id) {
                true => RowOutcome::Stored,
                false => RowOutcome::Duplicate { conflicting: false },
            })
            .collect();
        self.mark_conflicts(&rows, &mut outcomes).await;
        Ok(Fenced::Done(outcomes))
    }

    /// Marks the duplicates that have other content than what the log has.
    async fn mark_conflicts(&self, rows: &[Event], outcomes: &mut [RowOutcome]) {
        let duplicates: Vec<(i32, &Event)> = (0..)
            .zip(rows)
            .zip(&*outcomes)
            .filter(|(_, outcome)| **outcome != RowOutcome::Stored)
            .map(|(event, _)| event)
            .collect();
        let mut bytes = 0_usize;
        // A query holds what it sends several times over, so it sends a slice.
        let slices = duplicates.chunk_by(|(_, event), _| {
            bytes = bytes.saturating_add(event.weight());
            let more = bytes < COMPARED_BYTES;
            if !more {
                bytes = 0;
            }
            more
        });
        for slice in slices {
            let found = self
                .pools
                .read(async |connection| read::conflicts(connection, slice).await)
                .await;
            match found {
                Ok(places) => {
                    for place in places {
                        let place = usize::try_from(place).unwrap_or(usize::MAX);
                        if let Some(outcome) = outcomes.get_mut(place) {
                            *outcome = RowOutcome::Duplicate { conflicting: true };
                        }
                    }
                }
                // The rows are committed; failing now would have them all written again for nothing.
                Err(error) => {
                    tracing::warn!(
                        %error,
                        duplicates = duplicates.len(),
                        "could not compare duplicates with what the log has"
                    );
                    return;
                }
            }
        }
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, StoreError> {
        match self.insert(rows, None).await? {
            Fenced::Done(outcomes) => Ok(outcomes),
            // Without a lane there is no lease to lose.
            Fenced::Lost => Ok(Vec::new()),
        }
    }

    async fn write_in_lane(
        &self,
        rows: Rows,
        lane: &Lane,
    ) -> Result<Fenced<Vec<RowOutcome>>, StoreError> {
        self.insert(rows, Some(lane)).await
    }

    async fn get(&self, event_id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        self.pools
            .read(async |connection| read::get(connection, event_id).await)
            .await
    }

    async fn list(
        &self,
        filter: &EventFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.pools
            .read(async |connection| read::list(connection, filter, before, limit).await)
            .await
    }

    async fn count_by(
        &self,
        field: CountBy,
        filter: &EventFilter,
    ) -> Result<Vec<Count>, StoreError> {
        self.pools
            .read(async |connection| read::count_by(connection, field, filter).await)
            .await
    }

    async fn write_probe(&self, rows: &[Event], lane: Option<i64>) -> Result<(), StoreError> {
        const LIMIT: Duration = Duration::from_secs(5);
        let write = self
            .pools
            .write(async |client| write::probe(client, &self.partitions, rows, lane).await);
        match tokio::time::timeout(LIMIT, write).await {
            // A constraint or trigger of the operator's own refuses this row: others can be written.
            Ok(Err(error)) if !error.stops_all_writes() => Ok(()),
            Ok(result) => result,
            Err(_) => Err(StoreError::no_answer_within(LIMIT)),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.pools.read(read::is_writable).await? {
            return Ok(());
        }
        Err(StoreError::new(
            ErrorKind::Operator,
            "PostgreSQL is read-only (a replica, or default_transaction_read_only)",
        ))
    }
}

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn insert(&self, letters: Vec<DeadLetter>) -> Result<u64, StoreError> {
        self.pools
            .write(async |client| dead_letters_write::insert(client, letters).await)
            .await
    }

    async fn get_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        self.pools
            .read(async |connection| dead_letters_read::get(connection, id).await)
            .await
    }

    async fn list_letters(
        &self,
        filter: &DeadLetterFilter,
        order: DeadLetterOrder,
        after: Option<DeadLetterPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetterSummary>, StoreError> {
        self.pools
            .read(async |connection| {
                dead_letters_read::list(connection, filter, order, after, limit).await
            })
            .await
    }

    async fn count_letters(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        self.pools
            .read(async |connection| dead_letters_read::count(connection, filter).await)
            .await
    }

    async fn mark_replayed(&self, letters: Vec<Replayed>) -> Result<(), StoreError> {
        self.pools
            .write(async |client| dead_letters_write::mark_replayed(client, &letters).await)
            .await
    }

    async fn purge_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.pools
            .write(async |client| dead_letters_write::purge(client, filter, limit).await)
            .await
    }
}

//! The event log in PostgreSQL, 15 or later.
//!
//! Writes go through `tokio-postgres` (`write`), because their errors decide the fate of a batch
//! and diesel-async hides the SQLSTATE; queries go through diesel (`read`).

mod alone;
mod detach;
mod leases;
mod letters_read;
mod letters_write;
mod migrate;
mod options;
mod partitions;
mod pool;
mod read;
mod retention;
mod rows;
mod schema;
mod tls;
mod write;

pub use alone::connect_alone;
pub use migrate::migrate;
pub use options::PostgresOptions;

use super::compatibility::Schema;
use super::dead_letters::{
    DeadLetter, LetterFilter, LetterOrder, LetterPosition, LetterSummary, Replayed,
};
use super::{
    Count, CountBy, DeadLetterStore, ErrorKind, EventFilter, EventStore, Page, RetentionStore,
    RowOutcome, StoreError, TailPosition, outcomes,
};
use crate::event::{Rows, StoredEvent};
use async_trait::async_trait;
use partitions::Partitions;
use pool::Pools;
use std::time::Duration;
use uuid::Uuid;

/// The event log in PostgreSQL.
pub struct PostgresStore {
    pools: Pools,
    partitions: Partitions,
}

impl PostgresStore {
    /// Connects, checks that the schema is one this release can work on, and makes the partitions
    /// of today and the next two days.
    ///
    /// # Errors
    /// `Outage` if the server is not there, `Operator` if it refuses, if the URL cannot be read,
    /// or if the schema is missing, too old or too new.
    pub async fn connect(options: &PostgresOptions) -> Result<Self, StoreError> {
        let store = Self {
            pools: Pools::new(options)?,
            partitions: Partitions::default(),
        };
        store.check_schema().await?;
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

    async fn insert(&self, rows: Rows, lane: Option<i64>) -> Result<Vec<RowOutcome>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let new = self
            .pools
            .write(async |client| write::insert(client, &self.partitions, &rows, lane).await)
            .await?;
        let Some(new) = new else {
            return Ok(vec![RowOutcome::Stored; rows.len()]);
        };
        let mut outcomes = outcomes::of_rows(&rows, new);
        let duplicates = outcomes::duplicates(&rows, &outcomes);
        if duplicates.is_empty() {
            return Ok(outcomes);
        }
        let earlier = self
            .pools
            .read(async |connection| read::by_ids(connection, &duplicates).await)
            .await;
        match earlier {
            Ok(earlier) => outcomes::mark_conflicts(&rows, &mut outcomes, earlier),
            // The rows are committed; failing now would have them all written again for nothing.
            Err(error) => tracing::warn!(
                %error,
                duplicates = duplicates.len(),
                "could not compare duplicates with what the log has"
            ),
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, StoreError> {
        self.insert(rows, None).await
    }

    async fn write_in_lane(&self, rows: Rows, lane: i64) -> Result<Vec<RowOutcome>, StoreError> {
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

    async fn tail_from_now(&self) -> Result<TailPosition, StoreError> {
        self.pools.read(read::tail_from_now).await
    }

    async fn tail(
        &self,
        filter: &EventFilter,
        after: TailPosition,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, TailPosition), StoreError> {
        self.pools
            .read(async |connection| read::tail(connection, filter, after, limit).await)
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

    async fn canary(&self) -> Result<(), StoreError> {
        const LIMIT: Duration = Duration::from_secs(5);
        // Into the log itself, since a lock on it stops every event alike, and never committed.
        const ROW: &str = "INSERT INTO user_interactions \
            (event_id, bucket, source, producer, event_type) \
            VALUES (gen_random_uuid(), '0001-01-01', 'canary', 'eclusa', 'eclusa.canary')";
        let write = self.pools.write(async |client| {
            let transaction = client.transaction().await?;
            transaction.execute(ROW, &[]).await?;
            transaction.rollback().await?;
            Ok(())
        });
        match tokio::time::timeout(LIMIT, write).await {
            // A rule of the operator's own that this row breaks: the store can be written all the same.
            Ok(Err(error)) if error.kind() == ErrorKind::Poison => Ok(()),
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
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<u64, StoreError> {
        self.pools
            .write(async |client| letters_write::bury(client, letters).await)
            .await
    }

    async fn get_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        self.pools
            .read(async |connection| letters_read::get(connection, id).await)
            .await
    }

    async fn list_letters(
        &self,
        filter: &LetterFilter,
        order: LetterOrder,
        after: Option<LetterPosition>,
        limit: usize,
    ) -> Result<Vec<LetterSummary>, StoreError> {
        self.pools
            .read(async |connection| {
                letters_read::list(connection, filter, order, after, limit).await
            })
            .await
    }

    async fn count_letters(&self, filter: &LetterFilter) -> Result<u64, StoreError> {
        self.pools
            .read(async |connection| letters_read::count(connection, filter).await)
            .await
    }

    async fn mark_replayed(&self, letters: Vec<Replayed>) -> Result<(), StoreError> {
        self.pools
            .write(async |client| letters_write::mark_replayed(client, &letters).await)
            .await
    }

    async fn purge_letters(&self, filter: &LetterFilter, limit: usize) -> Result<u64, StoreError> {
        self.pools
            .write(async |client| letters_write::purge(client, filter, limit).await)
            .await
    }
}

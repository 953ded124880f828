//! Retention: deletion of events that are older than `store.retention`.
//!
//! On PostgreSQL an event with a UUIDv7 lies in the partition of the id's day, which goes as a
//! whole when the day is older; all other events go by `received_at`. SQLite has one table, and all
//! its events go by `received_at`.
//!
//! Outcomes of runs go by the time at which the runs ended. On PostgreSQL they lie in epochs, partitions by ranges of
//! positions, of which each goes as a whole.
//!
//! What a follower has not read stays for some days more. When it goes all the same, the follower is
//! gapped in the same transaction.

use super::StoreError;
use super::leases::{Fenced, Lease};
use async_trait::async_trait;
use chrono::NaiveDate;

/// What one slice of deletions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub deleted: u64,
    /// Where the next slice begins; `None` when all behind it is to be kept, or nothing is there.
    pub next: Option<i64>,
}

/// What one call of [`RetentionStore::expire_runs`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpiredRuns {
    /// Roughly, where a partition was dropped.
    pub deleted: u64,
    /// Whether there may be more: call it again.
    pub more: bool,
}

/// Who has not read a day, and when that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Unread {
    /// The followers, by name.
    pub followers: Vec<String>,
    /// The last commit that was looked at.
    #[cfg(feature = "postgres")]
    pub(super) seq: i64,
    /// A digest of all followers' names and revisions.
    #[cfg(feature = "postgres")]
    pub(super) revisions: i64,
    /// The last commit that can have an event of the day.
    #[cfg(feature = "postgres")]
    pub(super) last: i64,
}

/// What a slice held when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) rows: u64,
    /// Those that are to go.
    pub(super) old: u64,
    /// Those that came from a clock that was more than a day ahead. They say nothing about the rows
    /// behind them.
    pub(super) ahead: u64,
}

impl Seen {
    /// Whether there may be old rows behind a slice of at most `limit` rows. They arrived in order,
    /// but for late ones: only a slice of rows to keep, and none that goes, says that all behind it
    /// stay.
    pub(super) fn goes_on(self, limit: u32) -> bool {
        self.rows >= u64::from(limit) && (self.old > 0 || self.ahead == self.rows)
    }
}

/// Deletes old events. Ages are by the database's clock.
#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// Makes the partitions of the coming days, where there are partitions.
    async fn prepare_days(&self) -> Result<(), StoreError>;

    /// The days that lie more than `keep` days back as a whole, oldest first.
    ///
    /// # Errors
    /// `Operator` if the clocks of the database and of this machine are apart.
    async fn due_days(&self, keep: u32) -> Result<Vec<NaiveDate>, StoreError>;

    /// The followers that have not read all events of a day, or any of it.
    async fn followers_behind(&self, day: NaiveDate) -> Result<Unread, StoreError>;

    /// Drops a day; the followers that are behind it are gapped. Inserts and reads wait for a fraction of
    /// a second at most.
    ///
    /// # Errors
    /// `Transient` while a transaction uses the log for longer than that, or when a follower was changed
    /// or an event of the day has come since it was looked at: look and call again later.
    async fn drop_day(
        &self,
        lease: &Lease,
        day: NaiveDate,
        behind: &Unread,
    ) -> Result<Fenced<()>, StoreError>;

    /// Deletes events that were received more than `keep` days ago and have no day of their own,
    /// in the order of their arrival in the log, looking at `limit` rows behind the `id` `after`.
    /// There is a next slice if this one was full and held an old row, or nothing but rows received
    /// more than a day from now. What a follower has not read stays unless `unread` is set; then the
    /// follower is gapped.
    async fn trim(
        &self,
        lease: &Lease,
        keep: u32,
        unread: bool,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError>;

    /// Deletes the headers of commits that were numbered more than `keep` days ago and of which no event
    /// is left, looking at `limit` of them behind the number `after`.
    async fn trim_headers(
        &self,
        lease: &Lease,
        keep: u32,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError>;

    /// Deletes the outcomes of runs that ended more than `keep` days ago, and those of reactions that were removed, a
    /// bounded number at a time. Open runs stay. Where outcomes are partitioned, it also begins the next epoch when
    /// the last one is old enough.
    ///
    /// # Errors
    /// `Transient` while a transaction uses the outcomes for longer than a drop waits; what comes before the drop is done.
    async fn expire_runs(
        &self,
        lease: &Lease,
        keep: Option<u32>,
    ) -> Result<Fenced<ExpiredRuns>, StoreError>;
}

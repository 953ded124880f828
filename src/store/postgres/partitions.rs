//! The log's partitions: one for each UTC day, made ahead and on demand.

use crate::event::id::UNORDERED;
use crate::store::{ErrorKind, StoreError};
use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio_postgres::Client;

/// Key of the transaction lock under which partitions are made.
const LOCK: i64 = 0x6563_6c75_7361_0002;

/// Days after today whose partitions are made before anything needs them.
const AHEAD: u64 = 30;

/// Which partitions are known to be there. A replica or the retention may change that at any time;
/// the first insert that finds one missing says so (see [`Partitions::forget`]).
#[derive(Default)]
pub(super) struct Partitions {
    state: Mutex<PartitionState>,
}

#[derive(Default)]
struct PartitionState {
    known: BTreeSet<NaiveDate>,
    ahead_of: Option<NaiveDate>,
}

impl Partitions {
    fn state(&self) -> std::sync::MutexGuard<'_, PartitionState> {
        // Each change is a single step, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is there, so that the next look asks the database.
    pub(super) fn forget(&self) {
        *self.state() = PartitionState::default();
    }

    /// Makes the partitions of today and the days after it, once a day.
    pub(super) async fn ensure_ahead(
        &self,
        client: &mut Client,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let today = now.date_naive();
        if self.state().ahead_of == Some(today) {
            return Ok(());
        }
        let days = (0..=AHEAD).filter_map(|days| today.checked_add_days(Days::new(days)));
        self.ensure(client, days).await?;
        self.state().ahead_of = Some(today);
        Ok(())
    }

    /// Makes sure that these days have their partitions.
    ///
    /// Inserts and reads of other transactions go on meanwhile: a new table is attached, which
    /// takes no lock that they need (`CREATE TABLE ... PARTITION OF` would).
    pub(super) async fn ensure(
        &self,
        client: &mut Client,
        days: impl IntoIterator<Item = NaiveDate>,
    ) -> Result<(), StoreError> {
        let mut missing: BTreeSet<NaiveDate> = {
            let state = self.state();
            days.into_iter()
                .filter(|day| *day != UNORDERED && !state.known.contains(day))
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let there = attached(client).await?;
        missing.retain(|day| !there.contains(day));
        self.state().known.extend(there);
        for day in missing {
            create(client, day).await?;
            self.state().known.insert(day);
        }
        Ok(())
    }
}

/// The day as PostgreSQL reads it, also beyond the year 9999, to which chrono gives a sign.
pub(super) fn literal(day: NaiveDate) -> String {
    format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day())
}

/// The name of a day's partition.
pub(super) fn name(day: NaiveDate) -> String {
    format!(
        "user_interactions_{:04}{:02}{:02}",
        day.year(),
        day.month(),
        day.day()
    )
}

/// The days that have a partition. One that is being detached takes no rows any more.
pub(super) async fn attached(client: &Client) -> Result<BTreeSet<NaiveDate>, StoreError> {
    let rows = client
        .query(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = 'user_interactions'::regclass AND NOT i.inhdetachpending",
            &[],
        )
        .await?;
    let mut days = BTreeSet::new();
    for row in rows {
        days.extend(day_of(row.try_get(0)?));
    }
    Ok(days)
}

/// The day a partition is for, by its name: year, then two digits each for month and day.
fn day_of(name: &str) -> Option<NaiveDate> {
    let digits = name.strip_prefix("user_interactions_")?;
    let (year, month_day) = digits.split_at_checked(digits.len().checked_sub(4)?)?;
    let (month, day) = month_day.split_at_checked(2)?;
    NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
}

/// Whether an operator detaches the partition concurrently, which ends when no query reads it.
async fn is_pending(client: &Client, name: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_inherits \
               WHERE inhrelid = to_regclass($1) AND inhdetachpending)";
    Ok(client.query_one(sql, &[&name]).await?.try_get(0)?)
}

/// Makes one partition, unless another process was faster.
async fn create(client: &mut Client, day: NaiveDate) -> Result<(), StoreError> {
    let Some(next) = day.succ_opt() else {
        return Ok(());
    };
    let transaction = client.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    // Only now: the previous holder of the lock may have made it.
    if !attached(transaction.client()).await?.contains(&day) {
        let name = name(day);
        if is_pending(transaction.client(), &name).await? {
            let message =
                format!("{name} is being detached, and can be attached again when that has ended");
            return Err(StoreError::new(ErrorKind::Transient, message));
        }
        let (from, to) = (literal(day), literal(next));
        // The limit is for locks alone: a busy server may take longer than a write may to make a table.
        // One that was detached before the log got the column lacks it.
        transaction
            .batch_execute(&format!(
                "SELECT set_config('lock_timeout', current_setting('statement_timeout'), true), \
                        set_config('statement_timeout', '0', true); \
                 CREATE TABLE IF NOT EXISTS {name} (LIKE user_interactions INCLUDING ALL) \
                 WITH (fillfactor = 85); \
                 ALTER TABLE {name} ADD COLUMN IF NOT EXISTS schema_version smallint; \
                 ALTER TABLE user_interactions ATTACH PARTITION {name} \
                 FOR VALUES FROM ('{from}') TO ('{to}')"
            ))
            .await?;
        tracing::info!(partition = name, "made a partition of the event log");
    }
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_days_go_together() {
        for day in [(2026, 11, 20), (1970, 1, 1), (10_889, 8, 2)] {
            let day = NaiveDate::from_ymd_opt(day.0, day.1, day.2).unwrap();
            assert_eq!(day_of(&name(day)), Some(day));
        }
        assert_eq!(
            name(NaiveDate::from_ymd_opt(2026, 1, 2).unwrap()),
            "user_interactions_20260102"
        );
        assert_eq!(day_of("user_interactions_unordered"), None);
        assert_eq!(day_of("user_interactions_1"), None);
    }
}

//! Dropping days and trimming what has none.
//!
//! `DROP TABLE` of a partition locks the whole log, and while it waits for a long query every
//! insert waits behind it. So it waits for [`LOCK_TIMEOUT`] at most, and is tried again later.

use super::PostgresStore;
use super::leases::fence;
use super::partitions;
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::{RetentionStore, Seen, Slice};
use crate::store::{ErrorKind, StoreError};
use async_trait::async_trait;
use chrono::{DateTime, Days, NaiveDate, Utc};
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::SimpleQueryMessage;

/// How long a drop waits for the lock on the log, and so how long an insert waits behind it.
const LOCK_TIMEOUT: &str = "100ms";

/// As far apart as the clocks of the database and of this machine may be: one that is a year ahead
/// would have the whole log go.
const CLOCKS_APART: chrono::TimeDelta = chrono::TimeDelta::hours(6);

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn prepare_days(&self) -> Result<(), StoreError> {
        self.pools
            .maintain(async |client| self.partitions.ensure_ahead(client, Utc::now()).await)
            .await
    }

    async fn due_days(&self, keep: u32) -> Result<Vec<NaiveDate>, StoreError> {
        self.pools
            .maintain(async |client| {
                let now: DateTime<Utc> = client
                    .query_one("SELECT clock_timestamp()", &[])
                    .await?
                    .try_get(0)?;
                check_clock(now, Utc::now())?;
                let days = partitions::attached(client).await?.into_iter();
                Ok(days
                    .filter(|day| is_due(*day, now.date_naive(), keep))
                    .collect())
            })
            .await
    }

    async fn drop_day(&self, lease: &Lease, day: NaiveDate) -> Result<Fenced<()>, StoreError> {
        let dropped = self
            .pools
            .maintain(async |client| drop_day(client, lease, day).await)
            .await?;
        if dropped == Fenced::Done(()) {
            self.partitions.forget();
        }
        Ok(dropped)
    }

    async fn trim(
        &self,
        lease: &Lease,
        keep: u32,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError> {
        self.pools
            .maintain(async |client| {
                let transaction = client.transaction().await?;
                if !fence(&transaction, lease).await? {
                    return Ok(Fenced::Lost);
                }
                let slice = trim(&transaction, keep, after, limit).await?;
                transaction.commit().await?;
                Ok(Fenced::Done(slice))
            })
            .await
    }
}

/// Drops the partition of a day in one message, which the server carries out as one transaction: a
/// process that stops in the middle leaves no lock on the log. Under the lock, for which the
/// message may have waited, the lease is checked, and that the partition is still part of the log:
/// one that an operator has detached stays. Neither that check nor the partition itself is waited
/// for while inserts wait behind the lock.
async fn drop_day(
    client: &Client,
    lease: &Lease,
    day: NaiveDate,
) -> Result<Fenced<()>, StoreError> {
    let name = partitions::name(day);
    let held = format!(
        "FROM leases WHERE name = '{}' AND token = {}",
        lease.name.replace('\'', "''"),
        lease.token
    );
    let sql = format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
         LOCK TABLE ONLY user_interactions IN ACCESS EXCLUSIVE MODE; \
         LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT; \
         DO $$ BEGIN \
             PERFORM {held} FOR KEY SHARE NOWAIT; \
             IF FOUND AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '{name}'::regclass \
                 AND inhparent = 'user_interactions'::regclass AND NOT inhdetachpending) \
             THEN DROP TABLE {name}; END IF; \
         END $$; \
         SELECT to_regclass('{name}') IS NULL, EXISTS (SELECT {held})"
    );
    let answer = client.simple_query(&sql).await.map_err(|error| {
        // PostgreSQL's own words say why: a lock that was not to be had, or a view on the table.
        StoreError::from(error).context(&format!("{name} is not dropped yet"))
    })?;
    let (dropped, held) = answer
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((row.get(0) == Some("t"), row.get(1) == Some("t")))
            }
            _ => None,
        })
        .unwrap_or_default();
    match (dropped, held) {
        (true, _) => Ok(Fenced::Done(())),
        (false, false) => Ok(Fenced::Lost),
        (false, true) => Err(StoreError::new(
            ErrorKind::Transient,
            format!("{name} was detached while it was being dropped, and stays"),
        )),
    }
}

/// Whether the whole day is more than `keep` days ago: exactly the days that
/// [`check_day`](crate::event::id::check_day) refuses at the edge.
fn is_due(day: NaiveDate, today: NaiveDate, keep: u32) -> bool {
    today
        .checked_sub_days(Days::new(u64::from(keep)))
        .is_some_and(|oldest| day < oldest)
}

fn check_clock(theirs: DateTime<Utc>, ours: DateTime<Utc>) -> Result<(), StoreError> {
    let apart = (theirs - ours).abs();
    if apart <= CLOCKS_APART {
        return Ok(());
    }
    Err(StoreError::new(
        ErrorKind::Operator,
        format!(
            "the clock of the database ({}) and that of this machine ({}) are {} minutes apart; \
             nothing is deleted until they agree",
            theirs.format("%F %T"),
            ours.format("%F %T"),
            apart.num_minutes()
        ),
    ))
}

/// Reads a slice of the arrival index and deletes what is old of it. Without a condition on
/// `received_at` in the first query its cost is the slice, whatever the statistics say.
async fn trim(
    transaction: &Transaction<'_>,
    keep: u32,
    after: i64,
    limit: u32,
) -> Result<Slice, StoreError> {
    let cutoff = format!("now() - interval '{keep} days'");
    let look = format!(
        "SELECT max(id), count(*), count(*) FILTER (WHERE received_at < {cutoff}), \
                count(*) FILTER (WHERE received_at > now() + interval '1 day'), now() \
         FROM (SELECT id, received_at FROM user_interactions_unordered \
               WHERE id > {after} ORDER BY id LIMIT {limit}) AS slice"
    );
    let row = transaction.query_one(&look, &[]).await?;
    let count = |column| row.try_get(column).map(i64::unsigned_abs);
    let last: Option<i64> = row.try_get(0)?;
    let seen = Seen {
        rows: count(1)?,
        old: count(2)?,
        ahead: count(3)?,
    };
    check_clock(row.try_get(4)?, Utc::now())?;
    let next = last.filter(|_| seen.goes_on(limit));
    let Some(last) = last.filter(|_| seen.old > 0) else {
        return Ok(Slice { deleted: 0, next });
    };
    let delete = format!(
        "DELETE FROM user_interactions_unordered \
         WHERE id > {after} AND id <= {last} AND received_at < {cutoff}"
    );
    let deleted = transaction.execute(&delete, &[]).await?;
    Ok(Slice { deleted, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn a_day_is_due_once_the_edge_refuses_it() {
        let day = |d| NaiveDate::from_ymd_opt(2026, 3, d).unwrap();
        assert!(is_due(day(1), day(4), 2));
        assert!(!is_due(day(2), day(4), 2));
        assert!(!is_due(day(1), day(4), u32::MAX));
    }

    #[test]
    fn clocks_apart_stop_everything() {
        let at = |hour| Utc.with_ymd_and_hms(2026, 3, 1, hour, 0, 0).unwrap();
        assert!(check_clock(at(6), at(1)).is_ok());
        for (theirs, ours) in [(at(9), at(1)), (at(1), at(9))] {
            let error = check_clock(theirs, ours).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Operator);
            assert!(error.to_string().contains("480 minutes apart"), "{error}");
        }
    }
}

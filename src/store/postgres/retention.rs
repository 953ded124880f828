//! Dropping days and trimming what has none.
//!
//! `DROP TABLE` of a partition, and a plain `DETACH`, lock the whole log, and while they wait for a
//! long query every insert waits behind them. `DETACH ... CONCURRENTLY` waits alone. It cannot run in
//! a transaction, so a day goes in steps, each of which finds what the one before left:
//!
//! 1. *mark*, under the lease: a comment on the partition says that it is to go. A partition that
//!    somebody else has detached has no mark, and is left alone. So a mark that has lost its reason
//!    is taken away, under the lease.
//! 2. *detach*, if the mark is still there. Broken off while it waits, it leaves the partition
//!    *pending*: no longer in the log, not yet out of it. See [`detach`](super::detach).
//! 3. *finalize*, under the lease, if it was left pending.
//! 4. *drop*, under the lease: only what is marked, detached and still due. What is no longer due is
//!    attached again instead.
//!
//! Detaching and attaching again do not check the lease: the one cannot be in a transaction with the
//! check, the other is what any writer does for an event of that day. Neither loses a row: what is
//! detached and marked is dropped or attached again by whoever has the lease.

use super::PostgresStore;
use super::detach;
use super::leases::fence;
use super::partitions::{self, day_of};
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::{DayStep, RetentionStore, Seen, Slice};
use crate::store::{ErrorKind, StoreError};
use crate::supervision::failpoint;
use async_trait::async_trait;
use chrono::{DateTime, Days, NaiveDate, Utc};
use deadpool_postgres::Transaction;

/// The comment on a partition that is to go.
pub(super) const MARK: &str = "eclusa: dropped by store.retention";

/// How long a step may wait. Meanwhile it holds the lease's row, and may keep partitions from being
/// made.
const PATIENCE: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s'";

/// As far apart as the clocks of the database and of this machine may be: one that is a year ahead
/// would have the whole log go.
const CLOCKS_APART: chrono::TimeDelta = chrono::TimeDelta::hours(6);

const PARTITIONS: &str = "\
    SELECT c.relname::text, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false), \
           coalesce(obj_description(c.oid, 'pg_class') = $1, false), clock_timestamp() \
    FROM pg_class c \
    LEFT JOIN pg_inherits i \
           ON i.inhrelid = c.oid AND i.inhparent = 'user_interactions'::regclass \
    WHERE c.relkind = 'r' AND c.relname LIKE 'user\\_interactions\\_%' \
      AND c.relnamespace = (SELECT relnamespace FROM pg_class \
                            WHERE oid = 'user_interactions'::regclass)";

/// Where the partition of a day is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Waits to be taken out, which nothing else can be meanwhile.
    Pending,
    /// Is a table of its own.
    Detached,
    /// Is part of the log.
    Attached,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Partition {
    state: State,
    /// Sooner than others that are attached: a mark is taken away without waiting for anybody.
    due: bool,
    day: NaiveDate,
    marked: bool,
}

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn prepare_days(&self) -> Result<(), StoreError> {
        self.pools
            .chore(async |client| self.partitions.ensure_ahead(client, Utc::now()).await)
            .await
    }

    async fn drop_next_day(
        &self,
        lease: &Lease,
        keep: Option<u32>,
    ) -> Result<Fenced<Option<DayStep>>, StoreError> {
        let Some(mut next) = self.next(keep).await? else {
            return Ok(Fenced::Done(None));
        };
        let day = next.day;
        let name = partitions::name(day);
        if next.state == State::Attached && !next.due {
            let ended = self.under(lease, day, keep, Step::Unmark).await?;
            return Ok(ended.unwrap_or(Fenced::Done(Some(DayStep::Restored(day)))));
        }
        if next.state == State::Attached {
            if let Some(ended) = self.under(lease, day, keep, Step::Mark).await? {
                return Ok(ended);
            }
            failpoint::hit("retention.marked");
            let detached = self
                .pools
                .chore(async |client| detach::detach(client, &name).await)
                .await
                .map_err(|error| waits(error, &name))?;
            if !detached {
                return Ok(Fenced::Done(Some(DayStep::Changed(day))));
            }
            failpoint::hit("retention.detached");
            next.state = State::Detached;
        }
        if next.state == State::Pending {
            if let Some(ended) = self.under(lease, day, keep, Step::Finalize).await? {
                return Ok(ended);
            }
            failpoint::hit("retention.finalized");
        }
        if !next.due {
            // It was there when we last looked.
            self.partitions.forget();
            self.pools
                .chore(async |client| self.partitions.ensure(client, [day]).await)
                .await?;
            return Ok(Fenced::Done(Some(DayStep::Restored(day))));
        }
        if let Some(ended) = self.under(lease, day, keep, Step::Drop).await? {
            return Ok(ended);
        }
        self.partitions.forget();
        Ok(Fenced::Done(Some(DayStep::Dropped(day))))
    }

    async fn trim(
        &self,
        lease: &Lease,
        keep: u32,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError> {
        self.pools
            .chore(async |client| {
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

/// What is done to a partition under the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Mark,
    Unmark,
    Finalize,
    Drop,
}

impl PostgresStore {
    /// The partition to deal with: one that is on its way out already, else one that is marked and
    /// to be kept, else the oldest due.
    async fn next(&self, keep: Option<u32>) -> Result<Option<Partition>, StoreError> {
        self.pools
            .chore(async |client| {
                let found = all(client, keep).await?;
                Ok(found
                    .into_iter()
                    .filter(|partition| {
                        partition.due || partition.marked || partition.state != State::Attached
                    })
                    .min())
            })
            .await
    }

    /// One step, in one transaction with the check of the lease. `None` when it was done, else how
    /// it ends for this day: the lease is lost, or the partition is no longer what it was.
    async fn under(
        &self,
        lease: &Lease,
        day: NaiveDate,
        keep: Option<u32>,
        step: Step,
    ) -> Result<Option<Fenced<Option<DayStep>>>, StoreError> {
        let name = partitions::name(day);
        self.pools
            .chore(async |client| {
                let transaction = client.transaction().await?;
                transaction.batch_execute(PATIENCE).await?;
                if !fence(&transaction, lease).await? {
                    return Ok(Some(Fenced::Lost));
                }
                if step == Step::Drop {
                    // Nobody attaches it meanwhile.
                    partitions::lock(&transaction).await?;
                }
                if step == Step::Unmark {
                    detach::keep_out(&transaction).await?;
                }
                let found = all(transaction.client(), keep).await?;
                let found = found.into_iter().find(|partition| partition.day == day);
                let (fits, sql) = match step {
                    Step::Mark => (
                        found.is_some_and(|p| p.due && p.state == State::Attached),
                        format!("COMMENT ON TABLE {name} IS '{MARK}'"),
                    ),
                    Step::Unmark => (
                        found.is_some_and(|p| !p.due && p.marked && p.state == State::Attached),
                        format!("COMMENT ON TABLE {name} IS NULL"),
                    ),
                    Step::Finalize => (
                        found.is_some_and(|p| p.state == State::Pending),
                        format!("ALTER TABLE user_interactions DETACH PARTITION {name} FINALIZE"),
                    ),
                    Step::Drop => (
                        found.is_some_and(|p| p.due && p.state == State::Detached),
                        format!("DROP TABLE {name}"),
                    ),
                };
                if !fits {
                    return Ok(Some(Fenced::Done(Some(DayStep::Changed(day)))));
                }
                transaction.batch_execute(&sql).await?;
                transaction.commit().await?;
                Ok(None)
            })
            .await
            .map_err(|error| waits(error, &name))
    }
}

/// The partitions of days. Those that are not in the log are left out unless they are marked.
async fn all(
    client: &tokio_postgres::Client,
    keep: Option<u32>,
) -> Result<Vec<Partition>, StoreError> {
    let mut found = Vec::new();
    for row in client.query(PARTITIONS, &[&MARK]).await? {
        let Some(day) = day_of(row.try_get(0)?) else {
            continue;
        };
        let (attached, pending, marked): (bool, bool, bool) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let state = match (attached, pending) {
            (true, false) => State::Attached,
            (true, true) => State::Pending,
            (false, _) => State::Detached,
        };
        if state != State::Attached && !marked {
            continue;
        }
        let now: DateTime<Utc> = row.try_get(4)?;
        let due = match keep {
            None => false,
            Some(keep) => {
                check_clock(now, Utc::now())?;
                is_due(day, now.date_naive(), keep)
            }
        };
        found.push(Partition {
            state,
            due,
            day,
            marked,
        });
    }
    Ok(found)
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

/// Says what a step that ran into its time limit was waiting for.
fn waits(error: StoreError, name: &str) -> StoreError {
    match error.sqlstate() {
        // lock_timeout, statement_timeout
        Some("55P03" | "57014") => error.context(&format!(
            "{name} cannot go while a transaction is open that may still read it"
        )),
        _ => error,
    }
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

    #[test]
    fn what_is_under_way_goes_first_and_then_the_oldest() {
        let day = |d| NaiveDate::from_ymd_opt(2026, 3, d).unwrap();
        let partition = |state, due, d| Partition {
            state,
            due,
            day: day(d),
            marked: !due,
        };
        let mut all = [
            partition(State::Attached, true, 1),
            partition(State::Attached, true, 2),
            partition(State::Detached, true, 3),
            partition(State::Pending, true, 4),
            partition(State::Attached, false, 5),
        ];
        all.reverse();
        all.sort();
        let days: Vec<NaiveDate> = all.iter().map(|partition| partition.day).collect();
        assert_eq!(days, [day(4), day(3), day(5), day(1), day(2)]);
    }
}

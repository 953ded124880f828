//! Dropping days and trimming what has none.
//!
//! `DROP TABLE` of a partition locks the whole log, and while it waits for a long query every
//! insert waits behind it. So it waits for [`LOCK_TIMEOUT`] at most, and is tried again later.

use super::PostgresStore;
use super::commits;
use super::leases::fence;
use super::{page_room, partitions, removed_reactions, run_retention};
use crate::store::commit_log::Position;
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::{ExpiredRuns, RetentionStore, Seen, Slice, Unread};
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
            .maintain(async |client| {
                let now = Utc::now();
                self.partitions.ensure_ahead(client, now).await?;
                if let Err(error) = page_room::adapt(client, now).await {
                    // Nothing depends on it.
                    tracing::info!(%error, "pages of the log are written as full as before");
                }
                Ok(())
            })
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

    async fn followers_behind(&self, day: NaiveDate) -> Result<Unread, StoreError> {
        self.pools
            .maintain(async |client| {
                let row = client.query_one(BEHIND, &[&day]).await?;
                Ok(Unread {
                    followers: row.try_get(0)?,
                    seq: row.try_get(1)?,
                    revisions: row.try_get(2)?,
                    last: row.try_get(3)?,
                })
            })
            .await
    }

    async fn drop_day(
        &self,
        lease: &Lease,
        day: NaiveDate,
        behind: &Unread,
    ) -> Result<Fenced<()>, StoreError> {
        let dropped = self
            .pools
            .maintain(async |client| drop_day(client, lease, day, behind).await)
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
        unread: bool,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError> {
        self.pools
            .maintain(async |client| {
                let transaction = client.transaction().await?;
                if !fence(&transaction, lease).await? {
                    return Ok(Fenced::Lost);
                }
                let slice = trim(&transaction, keep, unread, after, limit).await?;
                transaction.commit().await?;
                Ok(Fenced::Done(slice))
            })
            .await
    }

    async fn trim_headers(
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
                let days = partitions::attached(transaction.client()).await?;
                let days: Vec<NaiveDate> = days.into_iter().collect();
                let row = transaction
                    .query_one(
                        HEADERS,
                        &[&after, &i64::from(keep), &i64::from(limit), &days],
                    )
                    .await?;
                let (deleted, last): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
                transaction.commit().await?;
                Ok(Fenced::Done(Slice {
                    deleted: deleted.unsigned_abs(),
                    next: last,
                }))
            })
            .await
    }

    async fn expire_runs(
        &self,
        lease: &Lease,
        keep: Option<u32>,
    ) -> Result<Fenced<ExpiredRuns>, StoreError> {
        let expired = self
            .pools
            .maintain(async |client| run_retention::expire(client, lease, keep).await)
            .await?;
        let Fenced::Done(mut expired) = expired else {
            return Ok(Fenced::Lost);
        };
        // Any process may delete these.
        let removed = self
            .pools
            .follow(async |connection| {
                removed_reactions::expire(connection)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await?;
        expired.deleted = expired.deleted.saturating_add(removed);
        expired.more |= removed > 0;
        Ok(Fenced::Done(expired))
    }
}

/// Followers that have a commit with an event of the day before them. What has no number yet is before
/// all of them. Numbers are given in the order of time, so a follower that has not read up to the end of the day
/// counts as behind; of what was numbered later, an index has the commits with events of other days. A follower
/// that is to be rebuilt has read nothing. The marks `processed` need no event that is gone. The last number that a
/// commit with an event of the day can have is found in the same way.
const BEHIND: &str = "\
    SELECT (SELECT coalesce(array_agg(f.name), '{}') FROM followers AS f \
            CROSS JOIN LATERAL (SELECT CASE WHEN f.rebuild THEN 0 ELSE position END AS position \
                                FROM follower_positions \
                                WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p \
            WHERE f.state <> 'gapped' AND f.name <> 'reactions:processed' \
              AND ((SELECT (numbered_at AT TIME ZONE 'UTC')::date FROM log_commits \
                    WHERE seq >= p.position >> 12 AND (seq << 12 | 4095) > p.position \
                    ORDER BY seq LIMIT 1) <= $1::date \
                   OR EXISTS (SELECT FROM log_commits \
                              WHERE seq >= p.position >> 12 AND (seq << 12 | 4095) > p.position \
                                AND NOT buckets <@ ARRAY[(numbered_at AT TIME ZONE 'UTC')::date, \
                                                         date '0001-01-01'] \
                                AND $1::date = ANY (buckets)) \
                   OR EXISTS (SELECT FROM log_arrivals WHERE $1::date = ANY (buckets)))), \
           (SELECT coalesce(max(seq), 0) FROM log_commits), \
           (SELECT coalesce(hashtextextended(string_agg(name || ' ' || revision, ',' ORDER BY name), 0), 0) \
            FROM followers), \
           greatest(coalesce((SELECT seq - 1 FROM log_commits \
                              WHERE (numbered_at AT TIME ZONE 'UTC')::date > $1::date ORDER BY seq LIMIT 1), \
                             (SELECT max(seq) FROM log_commits), 0), \
                    (SELECT max(seq) FROM log_commits \
                     WHERE NOT buckets <@ ARRAY[(numbered_at AT TIME ZONE 'UTC')::date, date '0001-01-01'] \
                       AND $1::date = ANY (buckets)))";

/// The least position of the followers that are not gapped and need the events.
const LEAST: &str = "\
    SELECT min(CASE WHEN f.rebuild THEN 0 ELSE p.position END) FROM followers AS f \
    CROSS JOIN LATERAL (SELECT position FROM follower_positions \
                        WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p \
    WHERE f.state <> 'gapped' AND f.name <> 'reactions:processed'";

/// The newest header stays, so that the log has an end. `$4` are the days that have a partition: a header
/// of one of them stays, without a look at each.
const HEADERS: &str = "\
    WITH slice AS ( \
        SELECT seq, block, buckets FROM log_commits \
        WHERE seq > $1 AND numbered_at < now() - make_interval(days => $2::bigint::int) \
          AND seq < (SELECT max(seq) FROM log_commits) \
        ORDER BY seq LIMIT $3 \
    ), deleted AS ( \
        DELETE FROM log_commits WHERE seq IN ( \
            SELECT slice.seq FROM slice \
            WHERE NOT buckets && $4::date[] \
              AND NOT ('0001-01-01' = ANY (buckets) \
                       AND EXISTS (SELECT FROM user_interactions_unordered AS event \
                                   WHERE event.id >= slice.block << 12 \
                                     AND event.id < (slice.block + 1) << 12))) \
        RETURNING seq \
    ) \
    SELECT (SELECT count(*) FROM deleted), \
           (SELECT max(seq) FROM slice HAVING count(*) >= $3)";

/// Drops the partition of a day in one message, which the server carries out as one transaction: a
/// process that stops in the middle leaves no lock on the log. Under the lock, for which the
/// message may have waited, the lease is checked, and that the partition is still part of the log:
/// one that an operator has detached stays. Neither that check nor the partition itself is waited
/// for while inserts wait behind the lock.
async fn drop_day(
    client: &Client,
    lease: &Lease,
    day: NaiveDate,
    unread: &Unread,
) -> Result<Fenced<()>, StoreError> {
    let name = partitions::name(day);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let held = format!(
        "FROM leases WHERE name = {} AND token = {}",
        quoted(&lease.name),
        lease.token
    );
    let behind: Vec<String> = unread.followers.iter().map(|name| quoted(name)).collect();
    let gapped = format!(
        "UPDATE followers \
         SET state = 'gapped', revision = revision + 1, changed_at = clock_timestamp(), \
             reason = 'the retention dropped the day {day}, which was not read to its end' \
         WHERE name = ANY (ARRAY[{}]::text[])",
        behind.join(",")
    );
    let floor = floor_after(day, commits::behind(unread.last));
    let literal = partitions::literal(day);
    let as_it_was = format!(
        "(SELECT coalesce(hashtextextended(string_agg(name || ' ' || revision, ',' ORDER BY name), 0), 0) \
          FROM followers) = {} \
         AND NOT EXISTS (SELECT FROM log_commits WHERE seq > {} AND date '{literal}' = ANY (buckets)) \
         AND NOT EXISTS (SELECT FROM log_arrivals WHERE date '{literal}' = ANY (buckets))",
        unread.revisions, unread.seq
    );
    let sql = format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
         LOCK TABLE ONLY user_interactions IN ACCESS EXCLUSIVE MODE; \
         LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT; \
         DO $$ BEGIN \
             PERFORM FROM log_floor FOR UPDATE; \
             PERFORM {held} FOR KEY SHARE NOWAIT; \
             IF FOUND AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '{name}'::regclass \
                 AND inhparent = 'user_interactions'::regclass AND NOT inhdetachpending) \
                 AND {as_it_was} \
             THEN DROP TABLE {name}; {gapped}; {floor}; END IF; \
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
            format!(
                "{name} stays for now: it was detached, or a follower or the day itself has changed"
            ),
        )),
    }
}

/// The statement that says that days up to this one are no longer complete, nor is what lies before a position.
fn floor_after(day: NaiveDate, deleted_to: Position) -> String {
    let since = partitions::literal(day.succ_opt().unwrap_or(day));
    format!(
        "UPDATE log_floor SET complete_since = greatest(complete_since, date '{since}'), \
                              deleted_to = greatest(deleted_to, {deleted_to})"
    )
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
    unread: bool,
    after: i64,
    limit: u32,
) -> Result<Slice, StoreError> {
    let cutoff = format!("now() - interval '{keep} days'");
    // A follower that begins, or begins again, with the first event waits, and then knows what is gone.
    transaction
        .execute("SELECT FROM log_floor FOR UPDATE", &[])
        .await?;
    let least: Option<i64> = match unread {
        true => None,
        false => transaction.query_one(LEAST, &[]).await?.try_get(0)?,
    };
    // What has no number yet is unread too.
    let is_read = least.map_or_else(String::new, |position| {
        format!(
            "AND NOT EXISTS (SELECT FROM log_commits \
                             WHERE block = id >> 12 AND (seq << 12 | 4095) > {position}) \
             AND NOT EXISTS (SELECT FROM log_arrivals WHERE block = id >> 12)"
        )
    });
    let goes = format!("received_at < {cutoff} {is_read}");
    let look = format!(
        "SELECT max(id), count(*), count(*) FILTER (WHERE {goes}), \
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
    let now: DateTime<Utc> = row.try_get(4)?;
    check_clock(now, Utc::now())?;
    let next = last.filter(|_| seen.goes_on(limit));
    let Some(last) = last.filter(|_| seen.old > 0) else {
        return Ok(Slice { deleted: 0, next });
    };
    let delete = format!(
        "WITH deleted AS ( \
             DELETE FROM user_interactions_unordered \
             WHERE id > {after} AND id <= {last} AND {goes} RETURNING id \
         ), gapped AS ( \
             UPDATE followers AS f \
             SET state = 'gapped', revision = revision + 1, changed_at = clock_timestamp(), \
                 reason = 'the retention deleted events that were not read' \
             WHERE state <> 'gapped' AND name <> 'reactions:processed' \
               AND (SELECT max(seq << 12 | (deleted.id & 4095)) \
                    FROM deleted JOIN log_commits ON block = deleted.id >> 12) \
                   > (SELECT CASE WHEN f.rebuild THEN 0 ELSE position END FROM follower_positions \
                      WHERE follower = f.name ORDER BY n DESC LIMIT 1) \
         ) SELECT count(*), coalesce((SELECT max(seq << 12 | (deleted.id & 4095)) \
                                      FROM deleted JOIN log_commits ON block = deleted.id >> 12), 0) \
           FROM deleted"
    );
    let row = transaction.query_one(&delete, &[]).await?;
    let (deleted, deleted_to): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let day = now
        .date_naive()
        .checked_sub_days(Days::new(u64::from(keep)));
    if let Some(day) = day {
        transaction
            .batch_execute(&floor_after(day, Position(deleted_to)))
            .await?;
    }
    Ok(Slice {
        deleted: deleted.unsigned_abs(),
        next,
    })
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

//! Outcomes that are old: epochs begin, are passed by all lanes, and go.
//!
//! An epoch begins under the lock of the numbering, behind the end of the log. A statement that inserts an outcome
//! knows its position because the event was numbered before; so if that lies behind the beginning, the statement sees
//! the epoch. A position has one epoch at any time, which is what makes the outcomes unique.
//!
//! When an epoch goes, its positions are the next one's: a reaction that is declared later from the beginning of the
//! log has somewhere to put its outcomes. What is open or young in it moves there too.

use super::leases::fence;
use crate::store::StoreError;
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::ExpiredRuns;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::SimpleQueryMessage;

/// How long a change of the partitions waits for a lock, and so how long outcomes wait behind it.
const LOCK_TIMEOUT: &str = "100ms";

/// Most rows that are moved when an epoch goes.
const MOVED: i64 = 5_000;
/// Counts that are added up at a time.
const FOLDED: i64 = 50_000;

/// Epochs that outcomes are kept for, roughly: more would make each look at the outcomes dearer, and fewer keep them
/// longer.
const EPOCHS: u32 = 30;
/// Days of an epoch if outcomes are kept forever.
const LONG: u32 = 30;

/// Days until the next epoch begins.
fn days(keep: Option<u32>) -> u32 {
    keep.map_or(LONG, |keep| keep.div_ceil(EPOCHS).max(1))
}

pub(super) async fn expire(
    client: &mut Client,
    lease: &Lease,
    keep: Option<u32>,
) -> Result<Fenced<ExpiredRuns>, StoreError> {
    let transaction = client.transaction().await?;
    if !fence(&transaction, lease).await? {
        return Ok(Fenced::Lost);
    }
    begin_epoch(&transaction, days(keep)).await?;
    transaction.commit().await?;
    let transaction = client.transaction().await?;
    if !fence(&transaction, lease).await? {
        return Ok(Fenced::Lost);
    }
    transaction.execute(LOCK_REACTIONS, &[]).await?;
    let folded: i64 = transaction.query_one(FOLD, &[&FOLDED]).await?.try_get(0)?;
    transaction.execute(PASS, &[]).await?;
    transaction.commit().await?;
    let done = ExpiredRuns {
        deleted: 0,
        more: folded >= FOLDED,
    };
    let Some(keep) = keep else {
        return Ok(Fenced::Done(done));
    };
    match drop_epoch(client, lease, keep).await? {
        Fenced::Lost => Ok(Fenced::Lost),
        Fenced::Done(None) => Ok(Fenced::Done(done)),
        Fenced::Done(Some(dropped)) => Ok(Fenced::Done(ExpiredRuns {
            deleted: dropped,
            more: true,
        })),
    }
}

/// The newest epoch, whether it is old enough and has rows to separate from those to come, and whether the partition
/// behind it is attached.
const NEWEST: &str = "\
    SELECT epoch, since < clock_timestamp() - make_interval(days => $1), \
           EXISTS (SELECT FROM pg_inherits \
                   WHERE inhrelid = to_regclass('reaction_runs_' || (epoch + 1)) \
                     AND inhparent = 'reaction_runs'::regclass) \
    FROM reaction_epochs ORDER BY epoch DESC LIMIT 1";

const BEGIN: &str = "\
    INSERT INTO reaction_epochs (epoch, from_position) \
    SELECT $1::int4, last.position \
    FROM (SELECT coalesce(max(seq), 0) << 12 | 4095 AS position FROM log_commits) AS last \
    WHERE last.position > (SELECT max(from_position) FROM reaction_epochs) \
      AND EXISTS (SELECT FROM log_commits)";

/// Begins an epoch if it is time. Its partition was attached by an earlier call: a statement that sees the epoch may
/// have looked at the partitions a little earlier, and must find it.
async fn begin_epoch(transaction: &Transaction<'_>, days: u32) -> Result<(), StoreError> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let row = transaction.query_one(NEWEST, &[&days]).await?;
    let (newest, is_old, is_prepared): (i32, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let next = newest.saturating_add(1);
    let patience = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
    transaction.batch_execute(&patience).await?;
    if !is_prepared {
        // Attached, and not made as a partition, which would lock out all who read or write outcomes.
        let name = name(next);
        let make = format!(
            "CREATE TABLE IF NOT EXISTS {name} (LIKE reaction_runs INCLUDING ALL); \
             ALTER TABLE reaction_runs ATTACH PARTITION {name} FOR VALUES IN ({next})"
        );
        transaction.batch_execute(&make).await?;
    } else if is_old {
        let hold = "SELECT pg_advisory_xact_lock(7161677777369124866)";
        transaction.batch_execute(hold).await?;
        if transaction.execute(BEGIN, &[&next]).await? == 1 {
            tracing::info!(epoch = next, "began an epoch of outcomes of reactions");
        }
    }
    Ok(())
}

/// The partition of an epoch.
fn name(epoch: i32) -> String {
    format!("reaction_runs_{epoch}")
}

/// A removal locks the reaction before the counts that go with it, and so does what adds them up.
const LOCK_REACTIONS: &str = "SELECT FROM reactions ORDER BY id FOR KEY SHARE";

/// The rows of each reaction become one.
const FOLD: &str = "\
    WITH gone AS ( \
        DELETE FROM reaction_counts WHERE ctid = ANY (ARRAY(SELECT ctid FROM reaction_counts LIMIT $1)) \
        RETURNING reaction, succeeded \
    ), folded AS ( \
        INSERT INTO reaction_counts (reaction, succeeded) \
        SELECT reaction, sum(succeeded) FROM gone GROUP BY reaction \
    ) \
    SELECT count(*) FROM gone";

/// Epochs that end before the positions of all lanes, and of the marks `processed` of all reactions, are passed. Gapped
/// lanes wait for a command, and so do the marks of their reactions.
const PASS: &str = "\
    WITH least (position) AS ( \
        SELECT coalesce(min(reached.position), 9223372036854775807) FROM ( \
            SELECT p.position FROM followers AS f \
            CROSS JOIN LATERAL (SELECT position FROM follower_positions \
                                WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p \
            WHERE f.kind = 'reaction' AND f.state <> 'gapped' \
            UNION ALL SELECT marked_to FROM reaction_positions AS r \
            WHERE NOT EXISTS (SELECT FROM followers AS f WHERE f.kind = 'reaction' AND f.state = 'gapped' \
                              AND split_part(f.name, ':', 1) = r.name) \
        ) AS reached \
    ), spans AS ( \
        SELECT epoch, lead(from_position) OVER (ORDER BY from_position) AS until FROM reaction_epochs \
    ) \
    UPDATE reaction_epochs AS e \
    SET passed_at = CASE WHEN spans.until <= least.position THEN clock_timestamp() END \
    FROM spans, least \
    WHERE e.epoch = spans.epoch AND (e.passed_at IS NULL) = (spans.until <= least.position)";

/// Epochs that were passed long enough ago, and the ones behind them.
const DUE: &str = "\
    SELECT e.epoch, next.epoch, next.until FROM reaction_epochs AS e \
    JOIN (SELECT epoch, lag(epoch) OVER (ORDER BY from_position) AS before, \
                 lag(from_position) OVER (ORDER BY from_position) AS until FROM reaction_epochs) AS next \
        ON next.before = e.epoch \
    WHERE e.passed_at < clock_timestamp() - make_interval(days => $1) ORDER BY e.from_position";

/// What is to stay of a partition: open runs, and those that ended less than `keep` days ago. These have been
/// in the queue: all others were decided before the epoch was passed. Each half is a range of an index.
fn stays(partition: &str, keep: u32) -> String {
    format!(
        "SELECT * FROM {partition} WHERE state = 'open' \
         UNION ALL \
         SELECT * FROM {partition} \
         WHERE finished_at >= now() - interval '{keep} days' AND history IS NOT NULL"
    )
}

/// Drops the oldest epoch that can go; roughly how many outcomes it had.
async fn drop_epoch(
    client: &mut Client,
    lease: &Lease,
    keep: u32,
) -> Result<Fenced<Option<u64>>, StoreError> {
    let days = i32::try_from(keep).unwrap_or(i32::MAX);
    for row in client.query(DUE, &[&days]).await? {
        let (epoch, next, from): (i32, i32, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let partition = name(epoch);
        let stays = stays(&partition, keep);
        let measure = format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM ({stays} LIMIT {MOVED} + 1) AS rows) AS counted), \
                    (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass('{partition}'))"
        );
        let row = client.query_one(&measure, &[]).await?;
        let (staying, rows): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        if staying > MOVED {
            tracing::warn!(
                epoch,
                "outcomes kept: too many runs of that time are open or young"
            );
            continue;
        }
        let dropped = drop_partition(client, lease, keep, (epoch, next, from)).await?;
        match dropped {
            Fenced::Lost => return Ok(Fenced::Lost),
            Fenced::Done(false) => continue,
            Fenced::Done(true) => {}
        }
        let rows = rows.unwrap_or(0).unsigned_abs();
        tracing::info!(epoch, rows, "epoch of old outcomes of reactions dropped");
        return Ok(Fenced::Done(Some(rows)));
    }
    Ok(Fenced::Done(None))
}

/// Drops a partition in one message, as `retention::drop_day` does; `false` if it is no longer to go. The row of the
/// epoch goes first: a declaration that begins before its end waits for it, or is seen.
async fn drop_partition(
    client: &Client,
    lease: &Lease,
    keep: u32,
    (epoch, next, from): (i32, i32, i64),
) -> Result<Fenced<bool>, StoreError> {
    let partition = name(epoch);
    let held = format!(
        "FROM leases WHERE name = '{}' AND token = {}",
        lease.name.replace('\'', "''"),
        lease.token
    );
    let stays = stays(&partition, keep);
    let sql = format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; \
         SET LOCAL enable_seqscan = off; \
         LOCK TABLE ONLY reaction_runs IN ACCESS EXCLUSIVE MODE; \
         LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE NOWAIT; \
         DO $$ BEGIN \
             PERFORM {held} FOR KEY SHARE NOWAIT; \
             IF NOT FOUND OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '{partition}'::regclass \
                 AND inhparent = 'reaction_runs'::regclass AND NOT inhdetachpending) \
             THEN RETURN; END IF; \
             DELETE FROM reaction_epochs \
             WHERE epoch = {epoch} AND passed_at < clock_timestamp() - interval '{keep} days'; \
             IF NOT FOUND THEN RETURN; END IF; \
             UPDATE reaction_epochs SET from_position = {from} WHERE epoch = {next}; \
             UPDATE reaction_queue AS q SET epoch = {next} FROM {partition} AS run \
             WHERE run.state = 'open' AND q.reaction = run.reaction AND q.position = run.position; \
             INSERT INTO reaction_runs \
             SELECT reaction, position, {next}, event_id, state, attempts, finished_at, duration_us, worker, error, \
                    history \
             FROM ({stays}) AS stays; \
             DROP TABLE {partition}; \
         END $$; \
         SELECT to_regclass('{partition}') IS NULL, EXISTS (SELECT {held})"
    );
    let answer = client.simple_query(&sql).await.map_err(|error| {
        StoreError::from(error).context(&format!("{partition} is not dropped yet"))
    })?;
    let answer = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1) == Some("t"))),
        _ => None,
    });
    match answer.unwrap_or_default() {
        (true, _) => Ok(Fenced::Done(true)),
        (false, true) => Ok(Fenced::Done(false)),
        (false, false) => Ok(Fenced::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_epochs_is_bounded() {
        assert_eq!(
            [1, 30, 31, 3_650].map(|keep| days(Some(keep))),
            [1, 1, 2, 122]
        );
        assert_eq!(days(None), LONG);
    }
}

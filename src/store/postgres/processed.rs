//! The mark `processed` of the log.

use super::commits::{behind, seq_of};
use super::prepared::Prepare;
use super::transactions::limit_locks;
use crate::store::StoreError;
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::reactions::MarkProcessed;
use chrono::NaiveDate;
use diesel::sql_types::{Array, BigInt, Bool, Date, Text, Uuid as UuidType};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// The end of a run of the queue and the marks of a stretch come one after the other: each sees what the other
/// has done.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7161677777369124867)";
const LOCK_SHARED: &str = "SELECT pg_advisory_xact_lock_shared(7161677777369124867)";

/// How long the marks of a stretch wait for a lock.
const PATIENCE: Duration = Duration::from_millis(200);

/// Those that have events of a type that a reaction is or was declared for.
const COMMITS: &str = "\
    SELECT seq, block, buckets FROM log_commits \
    WHERE seq > $1 AND seq <= $2 \
      AND ($3 OR types && $4 OR EXISTS (SELECT FROM unnest(types) AS t (t) WHERE t LIKE ANY ($5)))";

#[derive(diesel::QueryableByName)]
struct CommitRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    block: i64,
    #[diesel(sql_type = Array<Date>)]
    buckets: Vec<NaiveDate>,
}

const OPEN: &str = "\
    SELECT DISTINCT position FROM reaction_runs \
    WHERE reaction = ANY (ARRAY(SELECT id FROM reactions)) AND state IN ('open', 'failed') \
      AND position > $1 AND position <= $2";

#[derive(diesel::QueryableByName)]
struct OpenRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

/// `bucket = ANY` with the parameter prunes the partitions.
const MARK: &str = "\
    UPDATE user_interactions AS event SET processed = true \
    FROM unnest($1::bigint[], $2::bigint[]) AS commits (seq, block) \
    WHERE event.id >= commits.block << 12 AND event.id < (commits.block + 1) << 12 \
      AND event.bucket = ANY ($3) AND NOT event.processed \
      AND NOT EXISTS (SELECT FROM unnest($4::bigint[]) AS open (position) \
                      WHERE open.position = (commits.seq << 12 | (event.id & 4095)))";

pub(in crate::store) async fn mark(
    connection: &mut AsyncPgConnection,
    stretch: MarkProcessed,
) -> Result<(), StoreError> {
    let marking = mark_in(connection, stretch);
    marking.await.map_err(StoreError::postgres_read)
}

async fn mark_in(connection: &mut AsyncPgConnection, stretch: MarkProcessed) -> QueryResult<()> {
    // While this waits, no run of the queue can end: a transaction of a handler that is open for long must not
    // keep them from it.
    limit_locks(connection, PATIENCE).await?;
    sql_query(LOCK).prepared().execute(connection).await?;
    let mut awaited = super::reactions::awaited(connection).await?;
    awaited.extend(super::removed_reactions::types(connection).await?);
    if awaited.is_empty() {
        return Ok(());
    }
    let types = TypePatterns::new(awaited);
    let commits: Vec<CommitRow> = sql_query(COMMITS)
        .bind::<BigInt, _>(last_whole(stretch.after))
        .bind::<BigInt, _>(last_whole(stretch.until))
        .bind::<Bool, _>(types.is_all())
        .bind::<Array<Text>, _>(types.exact())
        .bind::<Array<Text>, _>(types.as_like())
        .prepared()
        .load(connection)
        .await?;
    if commits.is_empty() {
        return Ok(());
    }
    let open: Vec<OpenRow> = sql_query(OPEN)
        .bind::<BigInt, _>(behind(last_whole(stretch.after)).0)
        .bind::<BigInt, _>(stretch.until.0)
        .prepared()
        .load(connection)
        .await?;
    let buckets: BTreeSet<NaiveDate> = commits
        .iter()
        .flat_map(|commit| commit.buckets.iter().copied())
        .collect();
    let seqs: Vec<i64> = commits.iter().map(|commit| commit.seq).collect();
    let blocks: Vec<i64> = commits.iter().map(|commit| commit.block).collect();
    let open: Vec<i64> = open.iter().map(|row| row.position).collect();
    sql_query(MARK)
        .bind::<Array<BigInt>, _>(seqs)
        .bind::<Array<BigInt>, _>(blocks)
        .bind::<Array<Date>, _>(Vec::from_iter(buckets))
        .bind::<Array<BigInt>, _>(open)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

/// The last commit that lies before a position with all its events.
fn last_whole(position: Position) -> i64 {
    let seq = seq_of(position);
    match position == behind(seq) {
        true => seq,
        false => seq.saturating_sub(1),
    }
}

/// Keeps the marks of stretches away until the transaction ends. The first statement of a transaction that
/// ends runs of the queue, or opens them again.
pub(super) async fn hold_marks(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    sql_query(LOCK_SHARED)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

/// Locked in one order; the next statement sees what another transaction has decided about them.
const LOCK_EVENTS: &str = "\
    SELECT FROM user_interactions WHERE event_id = ANY ($1) AND bucket = ANY ($2) \
    ORDER BY event_id FOR NO KEY UPDATE";

/// Those whose other runs are decided and not open or failed. What lies behind the position up to which stretches
/// are marked is marked with its stretch.
const MARK_ENDED: &str = "\
    UPDATE user_interactions AS event SET processed = true \
    FROM unnest($1::uuid[], $3::bigint[]) AS ended (event_id, position) \
    WHERE event.event_id = ended.event_id AND event.bucket = ANY ($2) AND NOT event.processed \
      AND ended.position <= (SELECT position FROM follower_positions \
                             WHERE follower = 'reactions:processed' ORDER BY n DESC LIMIT 1) \
      AND NOT EXISTS (SELECT FROM reaction_runs AS run \
                      WHERE run.reaction = ANY (ARRAY(SELECT id FROM reactions)) \
                        AND run.state IN ('open', 'failed') AND run.position = ended.position)";

/// Marks the events of runs that have ended well in this transaction.
pub(super) async fn mark_ended(
    connection: &mut AsyncPgConnection,
    ids: &[Uuid],
    positions: &[i64],
) -> QueryResult<()> {
    let days = super::reaction_runs::days(ids);
    sql_query(LOCK_EVENTS)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Date>, _>(&days)
        .prepared()
        .execute(connection)
        .await?;
    sql_query(MARK_ENDED)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Date>, _>(&days)
        .bind::<Array<BigInt>, _>(positions)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

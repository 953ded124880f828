//! The mark `processed` of the log.

use super::commits::{behind, seq_of};
use super::prepared::Prepare;
use super::transactions::limit_locks;
use crate::store::StoreError;
use crate::store::commit_log::{Position, TypePatterns, like};
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

/// Moves the reactions of a stretch to its end, or as far as they have decided, and gives the types that they are or
/// were declared for. The lane with the number 0 has all declarations.
const MOVE: &str = "\
    WITH ahead AS MATERIALIZED ( \
        SELECT reaction, marked_to, least(decided_to, $2) AS until FROM reaction_positions \
        WHERE marked_to >= $1 AND marked_to < $2 \
    ), moved AS ( \
        UPDATE reaction_marks AS mark SET marked_to = ahead.until FROM ahead \
        WHERE mark.reaction = ahead.reaction AND mark.marked_to = ahead.marked_to \
          AND ahead.until > ahead.marked_to \
        RETURNING mark.reaction \
    ) \
    SELECT unnest(d.types) AS word FROM moved JOIN reactions AS r ON r.id = moved.reaction \
    JOIN follower_declarations AS d ON d.follower = r.name || ':0' \
    UNION SELECT unnest(r.types) FROM moved JOIN removed_reactions AS r ON r.id = moved.reaction";

#[derive(diesel::QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

/// The types that reactions have still to decide up to a position, and behind where. Events that a declaration holds
/// for lie behind its position.
const UNDECIDED: &str = "\
    SELECT greatest(r.decided_to, d.holds_from) AS behind, unnest(d.types) AS word FROM reaction_positions AS r \
    JOIN follower_declarations AS d ON d.follower = r.name || ':0' \
    WHERE r.decided_to < $1 AND d.holds_from < $1";

#[derive(diesel::QueryableByName)]
struct UndecidedRow {
    #[diesel(sql_type = BigInt)]
    behind: i64,
    #[diesel(sql_type = Text)]
    word: String,
}

/// What reactions have still to decide. It may be out of date, and then says too much: so read it before the runs.
struct Undecided {
    behind: Vec<i64>,
    likes: Vec<String>,
}

impl Undecided {
    async fn up_to(connection: &mut AsyncPgConnection, position: i64) -> QueryResult<Self> {
        let rows: Vec<UndecidedRow> = sql_query(UNDECIDED)
            .bind::<BigInt, _>(position)
            .prepared()
            .load(connection)
            .await?;
        Ok(Self {
            behind: rows.iter().map(|row| row.behind).collect(),
            likes: rows.iter().map(|row| like(&row.word)).collect(),
        })
    }
}

/// Those that have events of these types.
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
                      WHERE open.position = (commits.seq << 12 | (event.id & 4095))) \
      AND NOT EXISTS (SELECT FROM unnest($5::bigint[], $6::text[]) AS undecided (behind, type) \
                      WHERE undecided.behind < (commits.seq << 12 | (event.id & 4095)) \
                        AND event.event_type LIKE undecided.type)";

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
    let moved: Vec<WordRow> = sql_query(MOVE)
        .bind::<BigInt, _>(stretch.after.0)
        .bind::<BigInt, _>(stretch.until.0)
        .prepared()
        .load(connection)
        .await?;
    if moved.is_empty() {
        return Ok(());
    }
    let types = TypePatterns::new(moved.into_iter().map(|row| row.word));
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
    let undecided = Undecided::up_to(connection, stretch.until.0).await?;
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
        .bind::<Array<BigInt>, _>(undecided.behind)
        .bind::<Array<Text>, _>(undecided.likes)
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

/// Those whose other runs are decided and not open or failed. What a reaction has still to decide is marked with a later
/// stretch: none is under way.
const MARK_ENDED: &str = "\
    UPDATE user_interactions AS event SET processed = true \
    FROM unnest($1::uuid[], $3::bigint[]) AS ended (event_id, position) \
    WHERE event.event_id = ended.event_id AND event.bucket = ANY ($2) AND NOT event.processed \
      AND NOT EXISTS (SELECT FROM unnest($4::bigint[], $5::text[]) AS undecided (behind, type) \
                      WHERE undecided.behind < ended.position AND event.event_type LIKE undecided.type) \
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
    let last = positions.iter().copied().max().unwrap_or(0);
    let undecided = Undecided::up_to(connection, last).await?;
    sql_query(MARK_ENDED)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Date>, _>(&days)
        .bind::<Array<BigInt>, _>(positions)
        .bind::<Array<BigInt>, _>(undecided.behind)
        .bind::<Array<Text>, _>(undecided.likes)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

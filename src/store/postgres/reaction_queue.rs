//! The queue of runs that are due later: claims, and what becomes of them.

use super::prepared::Prepare;
use super::processed;
use super::reaction_runs::{LOCK_KEYS, json, micros};
use super::transactions::{in_transaction, limit_locks};
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::reactions::{
    Attempt, Claim, ClaimOutcome, Claimed, ClaimedRun, Ending, FinishedClaim, FinishedClaims, LOST,
    MAX_HISTORY, kept_error,
};
use crate::store::rows::JsonColumn;
use chrono::Utc;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Uuid as UuidType,
};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::time::Duration;
use uuid::Uuid;

/// A run whose claim has run out may have ended its process, and takes turns with others like it from now on. Only an
/// attempt that had such a turn counts: before, another run may have ended the process.
const CLAIM: &str = "\
    WITH due AS MATERIALIZED ( \
        SELECT q.position FROM reaction_queue AS q \
        WHERE q.reaction = $1 AND q.due <= clock_timestamp() AND (q.alone OR q.token IS NOT NULL) = $2 \
          AND NOT q.reopened \
          AND NOT (SELECT paused FROM reactions WHERE id = $1) \
        ORDER BY q.due LIMIT $3 FOR UPDATE SKIP LOCKED \
    ) \
    UPDATE reaction_queue AS q \
    SET due = clock_timestamp() + make_interval(secs => $4), attempts = q.attempts + 1, \
        attempts_before = q.attempts_before + (q.token IS NOT NULL AND NOT q.alone)::integer, \
        token = nextval('reaction_claims'), worker = $5, claimed_at = clock_timestamp(), \
        alone = q.alone OR q.token IS NOT NULL, \
        history = CASE WHEN q.token IS NULL THEN q.history \
            ELSE (CASE WHEN jsonb_array_length(q.history) < $7 THEN q.history ELSE q.history - 0 END) \
                 || jsonb_build_object('attempt', q.attempts, 'at', clock_timestamp(), \
                                       'worker', q.worker, 'error', $6::text) END \
    FROM due WHERE q.reaction = $1 AND q.position = due.position \
    RETURNING q.position, q.event, q.attempts, q.attempts_before, q.token";

#[derive(diesel::QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Jsonb)]
    event: JsonColumn,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    attempts_before: i32,
    #[diesel(sql_type = BigInt)]
    token: i64,
}

const NEXT: &str = "\
    SELECT extract(epoch FROM (SELECT due FROM reaction_queue \
                               WHERE reaction = $1 AND NOT alone AND token IS NULL AND NOT reopened \
                                 AND due < 'infinity' \
                               ORDER BY due LIMIT 1) - clock_timestamp())::float8 AS next, \
           extract(epoch FROM (SELECT due FROM reaction_queue \
                               WHERE reaction = $1 AND (alone OR token IS NOT NULL) AND due < 'infinity' \
                               ORDER BY due LIMIT 1) - clock_timestamp())::float8 AS next_alone, \
           EXISTS (SELECT FROM reaction_queue WHERE reaction = $1 AND reopened) AS reopened";

#[derive(diesel::QueryableByName)]
struct NextRow {
    #[diesel(sql_type = Nullable<Double>)]
    next: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    next_alone: Option<f64>,
    #[diesel(sql_type = Bool)]
    reopened: bool,
}

pub(super) async fn claim(
    connection: &mut AsyncPgConnection,
    claim: &Claim,
) -> QueryResult<Claimed> {
    let limit = i64::try_from(if claim.alone { 1 } else { claim.limit }).unwrap_or(i64::MAX);
    let rows: Vec<ClaimedRow> = sql_query(CLAIM)
        .bind::<Integer, _>(claim.reaction)
        .bind::<Bool, _>(claim.alone)
        .bind::<BigInt, _>(limit)
        .bind::<Double, _>(claim.lease.as_secs_f64())
        .bind::<Text, _>(&*claim.worker)
        .bind::<Text, _>(LOST)
        .bind::<Integer, _>(i32::try_from(MAX_HISTORY).unwrap_or(i32::MAX))
        .prepared()
        .load(connection)
        .await?;
    let next: NextRow = sql_query(NEXT)
        .bind::<Integer, _>(claim.reaction)
        .prepared()
        .get_result(connection)
        .await?;
    let positive = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    let overdue = next
        .next
        .into_iter()
        .chain(next.next_alone)
        .map(|next| positive(-next));
    let runs = rows.into_iter().map(|row| {
        Ok(ClaimedRun {
            position: Position(row.position),
            event: row.event.parse::<StoredEvent>()?,
            attempts: row.attempts.unsigned_abs(),
            attempts_before: row.attempts_before.unsigned_abs(),
            token: row.token,
        })
    });
    Ok(Claimed {
        runs: runs.collect::<QueryResult<_>>()?,
        next: next.next.map(positive),
        next_alone: next.next_alone.map(positive),
        overdue: overdue.max().unwrap_or_default(),
        reopened: next.reopened,
    })
}

/// The order keys of these claims.
const ORDER_KEYS: &str = "\
    SELECT order_key FROM reaction_queue \
    WHERE reaction = $1 AND position = ANY ($2) AND order_key IS NOT NULL";

#[derive(diesel::QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Text)]
    order_key: String,
}

const END: &str = "\
    WITH t AS MATERIALIZED ( \
        SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[]) \
            AS t (position, token, state, error, took) \
    ), gone AS ( \
        DELETE FROM reaction_queue AS q USING t \
        WHERE q.reaction = $1 AND q.position = t.position AND q.token = t.token \
        RETURNING q.position, q.epoch, q.attempts, q.history \
    ), ended AS ( \
        UPDATE reaction_runs AS run \
        SET state = t.state, attempts = gone.attempts, finished_at = clock_timestamp(), \
            duration_us = t.took, worker = $7, error = t.error, history = gone.history \
        FROM gone JOIN t USING (position) \
        WHERE run.reaction = $1 AND run.position = gone.position AND run.epoch = gone.epoch \
        RETURNING run.position, run.event_id, run.state \
    ), counted AS ( \
        INSERT INTO reaction_counts (reaction, succeeded) \
        SELECT $1, count(*) FROM ended WHERE state = 'succeeded' HAVING count(*) > 0 \
    ) \
    SELECT position, event_id, state FROM ended";

#[derive(diesel::QueryableByName)]
struct EndedRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = UuidType)]
    event_id: Uuid,
    #[diesel(sql_type = Text)]
    state: String,
}

/// One that has an earlier run of its key before it, because that was opened again, waits for it. An attempt that counts
/// shows that it does not end its process.
const AGAIN: &str = "\
    UPDATE reaction_queue AS q \
    SET due = CASE WHEN q.order_key IS NOT NULL \
                        AND EXISTS (SELECT FROM reaction_queue AS first \
                                    WHERE first.reaction = $1 AND first.order_key = q.order_key \
                                      AND first.position < q.position) \
                   THEN 'infinity' \
                   ELSE clock_timestamp() + make_interval(secs => t.after) END, token = NULL, worker = NULL, \
        alone = q.alone AND t.unspent, attempts = q.attempts - CASE WHEN t.unspent THEN 1 ELSE 0 END, \
        history = CASE WHEN t.unspent THEN q.history \
            ELSE (CASE WHEN jsonb_array_length(q.history) < $7 THEN q.history ELSE q.history - 0 END) \
                 || t.attempt::jsonb END \
    FROM unnest($2::bigint[], $3::bigint[], $4::float8[], $5::bool[], $6::text[]) \
         AS t (position, token, after, unspent, attempt) \
    WHERE q.reaction = $1 AND q.position = t.position AND q.token = t.token";

/// The first run of a key is due as soon as the one before it has ended.
pub(super) const PROMOTE: &str = "\
    UPDATE reaction_queue AS q SET due = clock_timestamp() \
    FROM (SELECT key, (SELECT min(position) FROM reaction_queue AS first \
                       WHERE first.reaction = $1 AND first.order_key = key) AS position \
          FROM unnest($2::text[]) AS key) AS head \
    WHERE q.reaction = $1 AND q.position = head.position AND q.due = 'infinity'";

pub(super) async fn finish(
    connection: &mut AsyncPgConnection,
    finished: &FinishedClaims,
) -> QueryResult<u64> {
    let FinishedClaims {
        reaction,
        worker,
        claims,
        lock_timeout,
    } = finished;
    in_transaction(connection, async |connection| {
        limit_locks(connection, *lock_timeout).await?;
        processed::hold_marks(connection).await?;
        finish_in(connection, *reaction, worker, claims).await
    })
    .await
}

/// The same in an open transaction, behind [`processed::hold_marks`].
pub(super) async fn finish_in(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    worker: &str,
    finished: &[FinishedClaim],
) -> QueryResult<u64> {
    let positions: Vec<i64> = finished.iter().map(|one| one.position.0).collect();
    let keys: Vec<KeyRow> = sql_query(ORDER_KEYS)
        .bind::<Integer, _>(reaction)
        .bind::<Array<BigInt>, _>(positions)
        .prepared()
        .load(connection)
        .await?;
    let keys: Vec<String> = keys.into_iter().map(|row| row.order_key).collect();
    if !keys.is_empty() {
        sql_query(LOCK_KEYS)
            .bind::<Integer, _>(reaction)
            .bind::<Array<Nullable<Text>>, _>(&keys)
            .prepared()
            .execute(connection)
            .await?;
    }
    let ended = end(connection, reaction, worker, finished).await?;
    let again = again(connection, reaction, worker, finished).await?;
    if !keys.is_empty() {
        sql_query(PROMOTE)
            .bind::<Integer, _>(reaction)
            .bind::<Array<Text>, _>(&keys)
            .prepared()
            .execute(connection)
            .await?;
    }
    let well = |row: &&EndedRow| row.state != Ending::Failed.as_str();
    let ids: Vec<Uuid> = ended.iter().filter(well).map(|row| row.event_id).collect();
    let positions: Vec<i64> = ended.iter().filter(well).map(|row| row.position).collect();
    if !ids.is_empty() {
        processed::mark_ended(connection, &ids, &positions).await?;
    }
    Ok((ended.len() + again) as u64)
}

async fn end(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    worker: &str,
    finished: &[FinishedClaim],
) -> QueryResult<Vec<EndedRow>> {
    let ended = |one| match one {
        &FinishedClaim {
            outcome: ClaimOutcome::Ended { ending, ref error },
            position,
            token,
            took,
            ..
        } => Some((
            position.0,
            token,
            ending.as_str(),
            error.as_deref().map(kept_error),
            micros(took),
        )),
        _ => None,
    };
    let mut rows: Vec<(i64, i64, &str, Option<String>, i64)> =
        finished.iter().filter_map(ended).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    rows.sort_by_key(|row| row.0);
    sql_query(END)
        .bind::<Integer, _>(reaction)
        .bind::<Array<BigInt>, _>(Vec::from_iter(rows.iter().map(|row| row.0)))
        .bind::<Array<BigInt>, _>(Vec::from_iter(rows.iter().map(|row| row.1)))
        .bind::<Array<Text>, _>(Vec::from_iter(rows.iter().map(|row| row.2)))
        .bind::<Array<Nullable<Text>>, _>(Vec::from_iter(rows.iter().map(|row| row.3.as_deref())))
        .bind::<Array<BigInt>, _>(Vec::from_iter(rows.iter().map(|row| row.4)))
        .bind::<Text, _>(worker)
        .prepared()
        .load(connection)
        .await
}

async fn again(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    worker: &str,
    finished: &[FinishedClaim],
) -> QueryResult<usize> {
    let again = |one: &FinishedClaim| match &one.outcome {
        ClaimOutcome::Again {
            after,
            error,
            unspent,
        } => {
            let attempt = Attempt {
                attempt: one.attempt,
                at: Utc::now(),
                worker: worker.to_owned(),
                error: kept_error(error),
                duration_ms: Some(one.took.as_secs_f64() * 1_000.0),
            };
            Some((
                one.position.0,
                one.token,
                after.as_secs_f64(),
                *unspent,
                json(&attempt),
            ))
        }
        ClaimOutcome::Ended { .. } => None,
    };
    let mut rows: Vec<(i64, i64, f64, bool, String)> = finished.iter().filter_map(again).collect();
    if rows.is_empty() {
        return Ok(0);
    }
    rows.sort_by_key(|row| row.0);
    sql_query(AGAIN)
        .bind::<Integer, _>(reaction)
        .bind::<Array<BigInt>, _>(Vec::from_iter(rows.iter().map(|row| row.0)))
        .bind::<Array<BigInt>, _>(Vec::from_iter(rows.iter().map(|row| row.1)))
        .bind::<Array<Double>, _>(Vec::from_iter(rows.iter().map(|row| row.2)))
        .bind::<Array<Bool>, _>(Vec::from_iter(rows.iter().map(|row| row.3)))
        .bind::<Array<Text>, _>(Vec::from_iter(rows.iter().map(|row| row.4.as_str())))
        .bind::<Integer, _>(i32::try_from(MAX_HISTORY).unwrap_or(i32::MAX))
        .prepared()
        .execute(connection)
        .await
}

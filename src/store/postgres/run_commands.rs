//! Cancelling runs, and opening them again.

use super::processed;
use super::reaction_queue::PROMOTE;
use super::reaction_runs::{LOCK_KEYS, count, json, not_processed};
use super::runs::{ENDED, RunRow};
use super::schema::reactions;
use super::transactions::{PATIENCE, in_transaction, limit_locks};
use crate::store::commit_log::Position;
use crate::store::reactions::{Attempt, kept_error, kept_history, lost_attempt};
use crate::store::rows::{JsonColumn, TimeColumn};
use crate::store::runs::{CancelledRun, ReopenedRun, RunRecord, RunState};
use crate::store::{ErrorKind, StoreError};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as UuidType,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::HashMap;
use uuid::Uuid;

/// For a run that is not decided.
const CANCEL: &str = "\
    INSERT INTO reaction_runs (reaction, position, epoch, event_id, state, attempts, finished_at, error) \
    SELECT $1, $2, e.epoch, $3, 'cancelled', 0, clock_timestamp(), $4 \
    FROM (SELECT epoch FROM reaction_epochs WHERE from_position < $2 ORDER BY from_position DESC LIMIT 1) AS e \
    ON CONFLICT DO NOTHING";

const ORDER_KEY: &str = "\
    SELECT order_key AS word FROM reaction_queue \
    WHERE reaction = $1 AND position = $2 AND order_key IS NOT NULL";
const STATE: &str = "SELECT state AS word FROM reaction_runs WHERE reaction = $1 AND position = $2";

#[derive(QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

const QUEUED: &str = "\
    SELECT epoch, attempts, history, token IS NOT NULL AS claimed, due > clock_timestamp() AS held, worker, \
           clock_timestamp() AS now \
    FROM reaction_queue WHERE reaction = $1 AND position = $2 FOR UPDATE";

#[derive(QueryableByName)]
struct QueuedRow {
    #[diesel(sql_type = Integer)]
    epoch: i32,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Jsonb)]
    history: JsonColumn,
    #[diesel(sql_type = Bool)]
    claimed: bool,
    /// Not due.
    #[diesel(sql_type = Bool)]
    held: bool,
    #[diesel(sql_type = Nullable<Text>)]
    worker: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    now: TimeColumn,
}

const TAKE_OUT: &str = "DELETE FROM reaction_queue WHERE reaction = $1 AND position = $2";
const END: &str = "\
    UPDATE reaction_runs \
    SET state = 'cancelled', attempts = $4, finished_at = clock_timestamp(), duration_us = NULL, worker = NULL, \
        error = $5, history = $6::jsonb \
    WHERE reaction = $1 AND position = $2 AND epoch = $3";

pub(super) async fn cancel(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    position: Position,
    event_id: Uuid,
    reason: &str,
) -> Result<CancelledRun, StoreError> {
    let reason = kept_error(reason);
    let cancelled = in_transaction(connection, async |connection| {
        // A handler's open transaction may have inserted the row.
        limit_locks(connection, PATIENCE).await?;
        processed::hold_marks(connection).await?;
        cancel_in(connection, reaction, position, event_id, &reason).await
    });
    let cancelled = cancelled.await.map_err(StoreError::postgres_read)?;
    cancelled.ok_or_else(|| {
        let message = format!("the reaction with the number {reaction} was removed");
        StoreError::new(ErrorKind::Operator, message)
    })
}

/// `None` if there is no such reaction.
async fn cancel_in(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    position: Position,
    event_id: Uuid,
    reason: &str,
) -> QueryResult<Option<CancelledRun>> {
    let of_run = |sql: &'static str| {
        sql_query(sql)
            .bind::<Integer, _>(reaction)
            .bind::<BigInt, _>(position.0)
    };
    if !hold(connection, reaction).await? {
        return Ok(None);
    }
    // Once more when the run was opened again between two looks.
    loop {
        let inserted = of_run(CANCEL)
            .bind::<UuidType, _>(event_id)
            .bind::<Text, _>(reason)
            .execute(connection)
            .await?;
        if inserted == 1 {
            processed::mark_ended(connection, &[event_id], &[position.0]).await?;
            return Ok(Some(CancelledRun::Done));
        }
        let keys: Vec<WordRow> = of_run(ORDER_KEY).load(connection).await?;
        let keys: Vec<String> = keys.into_iter().map(|row| row.word).collect();
        lock_keys(connection, reaction, &keys).await?;
        let queued: Option<QueuedRow> = of_run(QUEUED).get_result(connection).await.optional()?;
        if let Some(row) = queued {
            if row.claimed && row.held {
                return Ok(Some(CancelledRun::Running));
            }
            let mut history: Vec<Attempt> = row.history.parse()?;
            if row.claimed {
                let worker = row.worker.unwrap_or_default();
                history.push(lost_attempt(row.attempts, row.now.0, worker));
            }
            of_run(TAKE_OUT).execute(connection).await?;
            of_run(END)
                .bind::<Integer, _>(row.epoch)
                .bind::<Integer, _>(row.attempts)
                .bind::<Text, _>(reason)
                .bind::<Text, _>(json(&kept_history(history)))
                .execute(connection)
                .await?;
            sql_query(PROMOTE)
                .bind::<Integer, _>(reaction)
                .bind::<Array<Text>, _>(&keys)
                .execute(connection)
                .await?;
            processed::mark_ended(connection, &[event_id], &[position.0]).await?;
            return Ok(Some(CancelledRun::Done));
        }
        let state: Option<WordRow> = of_run(STATE).get_result(connection).await.optional()?;
        let state = state.map(|row| row.word).filter(|state| state != "open");
        if let Some(state) = state {
            return Ok(Some(CancelledRun::Ended(RunState::parse(&state))));
        }
    }
}

/// Whether there is this reaction, and it stays until the transaction ends.
async fn hold(connection: &mut AsyncPgConnection, reaction: i32) -> QueryResult<bool> {
    let row = reactions::table.find(reaction).select(reactions::id);
    let found: Option<i32> = row.for_key_share().first(connection).await.optional()?;
    Ok(found.is_some())
}

async fn lock_keys(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    keys: &[String],
) -> QueryResult<()> {
    if !keys.is_empty() {
        sql_query(LOCK_KEYS)
            .bind::<Integer, _>(reaction)
            .bind::<Array<Text>, _>(keys)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// One that is due together with others of its order key waits for them, whatever its position. With a key it waits
/// besides for the lane of the key, see `reopened`.
const REOPEN: &str = "\
    WITH t AS MATERIALIZED ( \
        SELECT * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::int4[], \
                             $8::text[]) \
            AS t (position, event, order_key, unique_key, due_after, attempts, history) \
    ), open AS ( \
        UPDATE reaction_runs AS run \
        SET state = 'open', finished_at = NULL, duration_us = NULL, worker = NULL, error = NULL, history = NULL \
        FROM t WHERE run.reaction = $1 AND run.position = t.position \
        RETURNING run.position, run.epoch, run.event_id \
    ) \
    INSERT INTO reaction_queue (reaction, position, epoch, event_id, event, order_key, unique_key, due, attempts, \
                                attempts_before, history, reopened) \
    SELECT $1, t.position, open.epoch, open.event_id, t.event::jsonb, t.order_key, t.unique_key, \
           CASE WHEN t.order_key IS NOT NULL \
                     AND (EXISTS (SELECT FROM reaction_queue AS q \
                                  WHERE q.reaction = $1 AND q.order_key = t.order_key) \
                          OR EXISTS (SELECT FROM t AS before \
                                     WHERE before.order_key = t.order_key AND before.position < t.position)) \
                THEN 'infinity' \
                ELSE clock_timestamp() + make_interval(secs => t.due_after) END, \
           t.attempts, t.attempts, t.history::jsonb, coalesce(t.order_key, t.unique_key) IS NOT NULL \
    FROM t JOIN open USING (position)";

const UNCOUNT: &str = "INSERT INTO reaction_counts (reaction, succeeded) VALUES ($1, - $2)";

pub(super) async fn reopen(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    runs: &[ReopenedRun],
) -> QueryResult<u64> {
    in_transaction(connection, async |connection| {
        processed::hold_marks(connection).await?;
        reopen_in(connection, reaction, runs).await
    })
    .await
}

async fn reopen_in(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    runs: &[ReopenedRun],
) -> QueryResult<u64> {
    if !hold(connection, reaction).await? {
        return Ok(0);
    }
    let keys: Vec<String> = runs
        .iter()
        .filter_map(|run| run.order_key.clone())
        .collect();
    lock_keys(connection, reaction, &keys).await?;
    let ended = format!(
        "{ENDED} WHERE run.reaction = $1 AND run.position = ANY ($2) AND run.state <> 'open' \
         ORDER BY run.position FOR UPDATE OF run"
    );
    let rows: Vec<RunRow> = sql_query(ended)
        .bind::<Integer, _>(reaction)
        .bind::<Array<BigInt>, _>(Vec::from_iter(runs.iter().map(|run| run.position.0)))
        .load(connection)
        .await?;
    let wanted: HashMap<Position, &ReopenedRun> =
        runs.iter().map(|run| (run.position, run)).collect();
    let mut opened: Vec<(RunRecord, &ReopenedRun)> = Vec::new();
    for row in rows {
        let row = RunRecord::try_from(row)?;
        if let Some(run) = wanted.get(&row.position)
            && run.event.event_id == row.event_id
        {
            opened.push((row, run));
        }
    }
    if opened.is_empty() {
        return Ok(0);
    }
    let history = |(row, _): &(RunRecord, &ReopenedRun)| json(&kept_history(row.whole_history()));
    sql_query(REOPEN)
        .bind::<Integer, _>(reaction)
        .bind::<Array<BigInt>, _>(Vec::from_iter(opened.iter().map(|(row, _)| row.position.0)))
        .bind::<Array<Text>, _>(Vec::from_iter(
            opened.iter().map(|(_, run)| json(&run.event)),
        ))
        .bind::<Array<Nullable<Text>>, _>(Vec::from_iter(
            opened.iter().map(|(_, run)| run.order_key.as_deref()),
        ))
        .bind::<Array<Nullable<Text>>, _>(Vec::from_iter(
            opened.iter().map(|(_, run)| run.unique_key.as_deref()),
        ))
        .bind::<Array<Double>, _>(Vec::from_iter(
            opened.iter().map(|(_, run)| run.after.as_secs_f64()),
        ))
        .bind::<Array<Integer>, _>(Vec::from_iter(
            opened.iter().map(|(row, _)| count(row.attempts)),
        ))
        .bind::<Array<Text>, _>(Vec::from_iter(opened.iter().map(history)))
        .execute(connection)
        .await?;
    let succeeded = |(row, _): &&(RunRecord, &ReopenedRun)| row.state == RunState::Succeeded;
    let succeeded = opened.iter().filter(succeeded).count();
    if succeeded > 0 {
        sql_query(UNCOUNT)
            .bind::<Integer, _>(reaction)
            .bind::<BigInt, _>(i64::try_from(succeeded).unwrap_or(i64::MAX))
            .execute(connection)
            .await?;
    }
    let ids: Vec<Uuid> = opened.iter().map(|(row, _)| row.event_id).collect();
    not_processed(connection, ids).await?;
    Ok(opened.len() as u64)
}

//! First outcomes of runs, in the transaction of a lane's step.

use super::prepared::Prepare;
use super::reopened;
use super::transactions::limit_locks;
use crate::event::{StoredEvent, id};
use crate::store::StoreError;
use crate::store::reactions::{Due, EndedRun, FirstOutcomes, QueuedRun, kept_error, kept_history};
use crate::supervision::failpoint;
use chrono::{DateTime, NaiveDate, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Date, Double, Integer, Nullable, Text, Timestamptz, Uuid as UuidType,
};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A row that is there already stands for a decision: another process's, a cancellation, or one that the handler has
/// stored itself.
const ENDED: &str = "\
    WITH ended AS ( \
        INSERT INTO reaction_runs (reaction, position, epoch, event_id, state, attempts, finished_at, \
                                   duration_us, worker, error) \
        SELECT $1, t.position, e.epoch, t.event_id, t.state, t.attempts, clock_timestamp(), t.took, $2, \
               t.error \
        FROM unnest($3::bigint[], $4::uuid[], $5::text[], $6::int4[], $7::bigint[], $8::text[]) \
             AS t (position, event_id, state, attempts, took, error) \
        CROSS JOIN LATERAL (SELECT epoch FROM reaction_epochs WHERE from_position < t.position \
                            ORDER BY from_position DESC LIMIT 1) AS e \
        ON CONFLICT DO NOTHING RETURNING event_id, state \
    ), counted AS ( \
        INSERT INTO reaction_counts (reaction, succeeded) \
        SELECT $1, count(*) FROM ended WHERE state = 'succeeded' HAVING count(*) > 0 \
    ) \
    SELECT event_id FROM ended WHERE state = 'failed'";

/// One after the other for an order key, with the end of an earlier run of it; see `reaction_queue`.
pub(super) const LOCK_KEYS: &str = "\
    SELECT pg_advisory_xact_lock($1, hash) \
    FROM (SELECT DISTINCT hashtext(key) AS hash FROM unnest($2::text[]) AS key \
          WHERE key IS NOT NULL ORDER BY hash) AS keys";

const QUEUED: &str = "\
    WITH t AS MATERIALIZED ( \
        SELECT * FROM unnest($3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::float8[], \
                             $9::timestamptz[], $10::int4[], $11::bool[], $12::text[]) \
            AS t (position, event_id, event, order_key, unique_key, due_after, due_at, attempts, alone, \
                  history) \
    ), open AS ( \
        INSERT INTO reaction_runs (reaction, position, epoch, event_id, state, attempts, worker) \
        SELECT $1, t.position, e.epoch, t.event_id, 'open', t.attempts, $2 FROM t \
        CROSS JOIN LATERAL (SELECT epoch FROM reaction_epochs WHERE from_position < t.position \
                            ORDER BY from_position DESC LIMIT 1) AS e \
        ON CONFLICT DO NOTHING RETURNING position, epoch \
    ) \
    INSERT INTO reaction_queue (reaction, position, epoch, event_id, event, order_key, unique_key, due, attempts, \
                                alone, history) \
    SELECT $1, t.position, open.epoch, t.event_id, t.event::jsonb, t.order_key, t.unique_key, \
           CASE WHEN t.order_key IS NOT NULL \
                     AND (EXISTS (SELECT FROM reaction_queue AS q \
                                  WHERE q.reaction = $1 AND q.order_key = t.order_key) \
                          OR EXISTS (SELECT FROM t AS before \
                                     WHERE before.order_key = t.order_key AND before.position < t.position)) \
                THEN 'infinity' \
                ELSE coalesce(t.due_at, clock_timestamp() + make_interval(secs => t.due_after)) END, \
           t.attempts, t.alone, t.history::jsonb \
    FROM t JOIN open USING (position) RETURNING (event->>'id')::uuid AS event_id";

#[derive(diesel::QueryableByName)]
struct EventRow {
    #[diesel(sql_type = UuidType)]
    event_id: Uuid,
}

/// For writers that did not know of the reaction yet.
pub(super) const NOT_PROCESSED: &str = "\
    UPDATE user_interactions SET processed = false \
    WHERE event_id = ANY ($1) AND bucket = ANY ($2) AND processed";

pub(in crate::store) async fn record(
    connection: &mut AsyncPgConnection,
    outcomes: &FirstOutcomes,
) -> Result<(), StoreError> {
    store(connection, outcomes)
        .await
        .map_err(StoreError::postgres_read)?;
    failpoint::hit("reaction.recorded");
    Ok(())
}

async fn store(connection: &mut AsyncPgConnection, outcomes: &FirstOutcomes) -> QueryResult<()> {
    if let Some(limit) = outcomes.lock_timeout {
        limit_locks(connection, limit).await?;
    }
    if !outcomes.ended.is_empty() {
        ended(connection, outcomes).await?;
    }
    // All at once, so that of two transactions none waits for the other crosswise.
    let keys: Vec<Option<&str>> = outcomes
        .queued
        .iter()
        .map(|run| run.order_key.as_deref())
        .chain(outcomes.released.iter().map(|key| Some(key.as_str())))
        .collect();
    if keys.iter().any(Option::is_some) {
        sql_query(LOCK_KEYS)
            .bind::<Integer, _>(outcomes.reaction)
            .bind::<Array<Nullable<Text>>, _>(keys)
            .prepared()
            .execute(connection)
            .await?;
    }
    if !outcomes.queued.is_empty() {
        queued(connection, outcomes).await?;
    }
    if !outcomes.released.is_empty() {
        reopened::release(connection, outcomes.reaction, &outcomes.released).await?;
    }
    Ok(())
}

async fn ended(connection: &mut AsyncPgConnection, outcomes: &FirstOutcomes) -> QueryResult<()> {
    // Of two transactions with the same runs none waits for the other crosswise.
    let mut runs: Vec<&EndedRun> = outcomes.ended.iter().collect();
    runs.sort_by_key(|run| run.position);
    let positions: Vec<i64> = runs.iter().map(|run| run.position.0).collect();
    let ids: Vec<Uuid> = runs.iter().map(|run| run.event_id).collect();
    let states: Vec<&str> = runs.iter().map(|run| run.ending.as_str()).collect();
    let attempts: Vec<i32> = runs.iter().map(|run| count(run.attempts)).collect();
    let took: Vec<i64> = runs.iter().map(|run| micros(run.took)).collect();
    let error = |run: &&EndedRun| run.error.as_deref().map(kept_error);
    let errors: Vec<Option<String>> = runs.iter().map(error).collect();
    let failed: Vec<EventRow> = sql_query(ENDED)
        .bind::<Integer, _>(outcomes.reaction)
        .bind::<Text, _>(&*outcomes.worker)
        .bind::<Array<BigInt>, _>(positions)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Text>, _>(states)
        .bind::<Array<Integer>, _>(attempts)
        .bind::<Array<BigInt>, _>(took)
        .bind::<Array<Nullable<Text>>, _>(errors)
        .prepared()
        .load(connection)
        .await?;
    not_processed(connection, ids_of(failed)).await
}

async fn queued(connection: &mut AsyncPgConnection, outcomes: &FirstOutcomes) -> QueryResult<()> {
    let mut runs: Vec<&QueuedRun> = outcomes.queued.iter().collect();
    runs.sort_by_key(|run| run.position);
    let order_keys: Vec<Option<&str>> = runs.iter().map(|run| run.order_key.as_deref()).collect();
    let ids: Vec<Uuid> = runs.iter().map(|run| run.event.event_id).collect();
    let positions: Vec<i64> = runs.iter().map(|run| run.position.0).collect();
    let events: Vec<String> = runs.iter().map(|run| text_of(&run.event)).collect();
    let unique_keys: Vec<Option<&str>> = runs.iter().map(|run| run.unique_key.as_deref()).collect();
    let due_after: Vec<Option<f64>> = runs.iter().map(|run| after(run.due)).collect();
    let due_at: Vec<Option<DateTime<Utc>>> = runs.iter().map(|run| at(run.due)).collect();
    let attempts: Vec<i32> = runs.iter().map(|run| count(run.attempts)).collect();
    let alone: Vec<bool> = runs.iter().map(|run| run.alone).collect();
    let history = |run: &&QueuedRun| json(&kept_history(run.history.clone()));
    let histories: Vec<String> = runs.iter().map(history).collect();
    let queued: Vec<EventRow> = sql_query(QUEUED)
        .bind::<Integer, _>(outcomes.reaction)
        .bind::<Text, _>(&*outcomes.worker)
        .bind::<Array<BigInt>, _>(positions)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Text>, _>(events)
        .bind::<Array<Nullable<Text>>, _>(order_keys)
        .bind::<Array<Nullable<Text>>, _>(unique_keys)
        .bind::<Array<Nullable<Double>>, _>(due_after)
        .bind::<Array<Nullable<Timestamptz>>, _>(due_at)
        .bind::<Array<Integer>, _>(attempts)
        .bind::<Array<Bool>, _>(alone)
        .bind::<Array<Text>, _>(histories)
        .prepared()
        .load(connection)
        .await?;
    not_processed(connection, ids_of(queued)).await
}

fn ids_of(events: Vec<EventRow>) -> Vec<Uuid> {
    events.into_iter().map(|event| event.event_id).collect()
}

/// These events have an open or a failed run since this transaction. One whose run was decided before keeps its mark: it
/// may lie behind the stretches, which mark each event once.
pub(super) async fn not_processed(
    connection: &mut AsyncPgConnection,
    ids: Vec<Uuid>,
) -> QueryResult<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let days = days(&ids);
    sql_query(NOT_PROCESSED)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Date>, _>(days)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

/// The partitions of these events.
pub(super) fn days(ids: &[Uuid]) -> Vec<NaiveDate> {
    Vec::from_iter(ids.iter().map(id::bucket).collect::<BTreeSet<_>>())
}

pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn micros(took: std::time::Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}

/// The copy of an event. A row that was read as JSON can be written as JSON.
fn text_of(event: &StoredEvent) -> String {
    json(event)
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn after(due: Due) -> Option<f64> {
    match due {
        Due::After(time) => Some(time.as_secs_f64()),
        Due::At(_) => None,
    }
}

fn at(due: Due) -> Option<DateTime<Utc>> {
    match due {
        Due::After(_) => None,
        Due::At(time) => Some(time),
    }
}

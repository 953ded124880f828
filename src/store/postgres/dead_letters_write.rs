//! Changes to the dead letters. Few and small beside the log's, so one statement a letter will do.

use crate::store::dead_letters::{
    DeadLetter, DeadLetterFailure, DeadLetterFilter, DeadLetterState, Replayed, in_order,
};
use crate::store::{ErrorKind, StoreError};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

pub(super) const INSERT: &str = "\
    INSERT INTO dead_letters \
        (id, state, created_at, failed_at, replayed_at, replays, attempts, frame, cause, error, \
         sqlstate, origin, event_id, event_type, content_type, message_id, body, headers, history) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
            $18::text::jsonb, $19::text::jsonb) \
    ON CONFLICT (id) DO NOTHING";

const LOCK: &str = "\
    SELECT state, created_at, failed_at, attempts, cause, error, sqlstate, history::text \
    FROM dead_letters WHERE id = $1 FOR UPDATE";

pub(super) const FAILED_AGAIN: &str = "\
    UPDATE dead_letters \
    SET state = $2, failed_at = $3, attempts = $4, cause = $5, error = $6, sqlstate = $7, \
        history = $8::text::jsonb \
    WHERE id = $1";

/// `replayed_at` is the database's time. A letter whose last failure is another one than was read
/// has failed again meanwhile.
const MARK_REPLAYED: &str = "\
    UPDATE dead_letters AS letter \
    SET replays = letter.replays + 1, replayed_at = now(), \
        state = CASE WHEN letter.failed_at = sent.failed_at THEN 'replayed' ELSE letter.state END \
    FROM unnest($1::uuid[], $2::timestamptz[]) AS sent (id, failed_at) \
    WHERE letter.id = sent.id";

/// Locked in the order of ids, as everywhere, so that it does not deadlock with an insert.
const MARK_LOCK: &str = "SELECT id FROM dead_letters WHERE id = ANY ($1) ORDER BY id FOR UPDATE";

const PURGE: &str = "\
    DELETE FROM dead_letters WHERE id IN ( \
        SELECT id FROM dead_letters \
        WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR cause = $2) \
          AND ($3::text IS NULL OR event_type = $3) \
          AND ($4::timestamptz IS NULL OR failed_at >= $4) \
          AND ($5::timestamptz IS NULL OR failed_at < $5) AND ($6::text IS NULL OR state = $6) \
        ORDER BY created_at, id LIMIT $7)";

/// See [`DeadLetterStore::insert`](crate::store::DeadLetterStore::insert).
pub(super) async fn insert(
    client: &mut Client,
    letters: Vec<DeadLetter>,
) -> Result<u64, StoreError> {
    let transaction = client.transaction().await?;
    let mut changed = 0;
    for letter in in_order(letters) {
        if insert_row(&transaction, &letter).await? || again(&transaction, letter).await? {
            changed += 1;
        }
    }
    transaction.commit().await?;
    Ok(changed)
}

async fn insert_row(
    transaction: &Transaction<'_>,
    letter: &DeadLetter,
) -> Result<bool, StoreError> {
    let headers = json(&letter.headers)?;
    let history = json(&letter.history)?;
    let failure = &letter.failure;
    let (replays, attempts) = (integer(letter.replays), integer(failure.attempts));
    let parameters: [&(dyn ToSql + Sync); 19] = [
        &letter.id,
        &letter.state.as_str(),
        &letter.created_at,
        &failure.at,
        &letter.replayed_at,
        &replays,
        &attempts,
        &letter.frame,
        &failure.cause,
        &failure.error,
        &failure.sqlstate,
        &letter.origin,
        &letter.event_id,
        &letter.event_type,
        &letter.content_type,
        &letter.message_id,
        &letter.body,
        &headers,
        &history,
    ];
    let statement = transaction.prepare_cached(INSERT).await?;
    Ok(transaction.execute(&statement, &parameters).await? == 1)
}

/// Updates a dead letter whose id exists. A concurrent purge wins.
async fn again(transaction: &Transaction<'_>, mut letter: DeadLetter) -> Result<bool, StoreError> {
    let statement = transaction.prepare_cached(LOCK).await?;
    let Some(row) = transaction.query_opt(&statement, &[&letter.id]).await? else {
        return insert_row(transaction, &letter).await;
    };
    let new = letter.failure.clone();
    letter.state = DeadLetterState::parse(row.try_get(0)?).unwrap_or(DeadLetterState::Dead);
    letter.created_at = row.try_get(1)?;
    letter.failure = DeadLetterFailure {
        at: row.try_get(2)?,
        attempts: u32::try_from(row.try_get::<_, i32>(3)?).unwrap_or(0),
        cause: row.try_get(4)?,
        error: row.try_get(5)?,
        sqlstate: row.try_get(6)?,
    };
    letter.history = serde_json::from_str(row.try_get(7)?).map_err(unreadable)?;
    if !letter.failed_again(new) {
        return Ok(false);
    }
    let history = json(&letter.history)?;
    let failure = &letter.failure;
    let attempts = integer(failure.attempts);
    let parameters: [&(dyn ToSql + Sync); 8] = [
        &letter.id,
        &letter.state.as_str(),
        &failure.at,
        &attempts,
        &failure.cause,
        &failure.error,
        &failure.sqlstate,
        &history,
    ];
    let statement = transaction.prepare_cached(FAILED_AGAIN).await?;
    Ok(transaction.execute(&statement, &parameters).await? == 1)
}

/// See [`DeadLetterStore::mark_replayed`](crate::store::DeadLetterStore::mark_replayed).
pub(super) async fn mark_replayed(
    client: &mut Client,
    letters: &[Replayed],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = letters.iter().map(|letter| letter.id).collect();
    let failed_at: Vec<DateTime<Utc>> = letters.iter().map(|letter| letter.failed_at).collect();
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(MARK_LOCK).await?;
    transaction.query(&statement, &[&ids]).await?;
    let statement = transaction.prepare_cached(MARK_REPLAYED).await?;
    transaction.execute(&statement, &[&ids, &failed_at]).await?;
    transaction.commit().await?;
    Ok(())
}

/// See [`DeadLetterStore::purge_letters`](crate::store::DeadLetterStore::purge_letters).
pub(super) async fn purge(
    client: &mut Client,
    filter: &DeadLetterFilter,
    limit: usize,
) -> Result<u64, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let state = filter.state.map(DeadLetterState::as_str);
    let statement = client.prepare_cached(PURGE).await?;
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &filter.ids,
        &filter.cause,
        &filter.event_type,
        &filter.from.map(crate::store::times::bound),
        &filter.to.map(crate::store::times::bound),
        &state,
        &limit,
    ];
    Ok(client.execute(&statement, &parameters).await?)
}

pub(super) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> StoreError {
    let message = "a dead letter's JSON cannot be read or written";
    StoreError::new(ErrorKind::Transient, message).with_source(error)
}

//! The transaction of a step.

use super::follower_letters;
use super::prepared::Prepare;
use super::schema::follower_replays;
use crate::event::id;
use crate::store::StoreError;
use crate::store::followers::{Also, Step};
use crate::store::leases::Fenced;
use crate::store::rows::IdColumn;
use crate::store::transaction::{Effect, EffectError, Transaction};
use chrono::NaiveDate;
use diesel::prelude::*;
use diesel::sql_types::{self, Array, BigInt, Date, Integer, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Positions that are kept before the newest.
const KEPT: i64 = 64;
/// The fence, the check of the record and the new position, which no other process may have stored: one
/// statement. The lock on the lease lasts until the commit.
const STEP: &str = "\
    WITH held AS MATERIALIZED ( \
        SELECT FROM leases WHERE name = $1 AND token = $2 FOR KEY SHARE \
    ), current AS MATERIALIZED ( \
        SELECT FROM followers \
        WHERE name = $3 AND ($4 IS NULL OR (revision = $4 AND state = 'running')) \
    ) \
    INSERT INTO follower_positions (follower, n, position, begun) \
    SELECT $3, $5, $6, $7 FROM held, current \
    WHERE $5 - 1 = (SELECT max(n) FROM follower_positions WHERE follower = $3) \
    ON CONFLICT DO NOTHING";

const FORGET: &str =
    "DELETE FROM follower_positions WHERE follower = $1 AND n < $2 AND n >= $2 - 256";

/// What it subscribes to today holds from the beginning.
const REBUILD: [&str; 4] = [
    // The retention locks it before it looks for followers. `$1` is not needed.
    "SELECT $1::text FROM log_floor FOR SHARE",
    "DELETE FROM follower_declarations WHERE follower = $1 AND holds_from < \
         (SELECT max(holds_from) FROM follower_declarations WHERE follower = $1)",
    "UPDATE follower_declarations SET holds_from = 0 WHERE follower = $1",
    "UPDATE followers \
     SET rebuild = false, revision = revision + 1, changed_at = clock_timestamp(), \
         complete_since = (SELECT f.complete_since FROM log_floor AS f) \
     WHERE name = $1",
];

/// The events of a follower's dead letters and of what waits to be applied again.
const FAILED: &str = "\
    SELECT event_id AS id FROM dead_letters \
    WHERE cause = 'follower' AND origin = $1 AND state = 'dead' AND event_id IS NOT NULL \
    UNION SELECT (event->>'id')::uuid FROM follower_replays WHERE follower = $1";
/// Those that the log still has, and so come again with the rest. The days prune the partitions, of which each
/// would be locked otherwise.
const LOGGED: &str = "\
    SELECT event_id AS id FROM user_interactions WHERE event_id = ANY ($1) AND bucket = ANY ($2)";
const FORGET_FAILED: [&str; 2] = [
    "DELETE FROM dead_letters \
     WHERE cause = 'follower' AND origin = $1 AND state = 'dead' AND event_id = ANY ($2)",
    "DELETE FROM follower_replays WHERE follower = $1 AND (event->>'id')::uuid = ANY ($2)",
];

#[derive(QueryableByName)]
struct EventId {
    #[diesel(sql_type = sql_types::Uuid)]
    id: Uuid,
}

async fn rebuild(connection: &mut AsyncPgConnection, follower: &str) -> QueryResult<()> {
    for statement in REBUILD {
        diesel::sql_query(statement)
            .bind::<Text, _>(follower)
            .execute(connection)
            .await?;
    }
    let ids = |rows: Vec<EventId>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    let failed = diesel::sql_query(FAILED).bind::<Text, _>(follower);
    let failed = ids(failed.load(connection).await?);
    if failed.is_empty() {
        return Ok(());
    }
    let days: BTreeSet<NaiveDate> = failed.iter().map(id::bucket).collect();
    let logged = diesel::sql_query(LOGGED)
        .bind::<Array<sql_types::Uuid>, _>(failed)
        .bind::<Array<Date>, _>(Vec::from_iter(days));
    let logged = ids(logged.load(connection).await?);
    for statement in FORGET_FAILED {
        diesel::sql_query(statement)
            .bind::<Text, _>(follower)
            .bind::<Array<sql_types::Uuid>, _>(&logged)
            .execute(connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn transact(
    connection: &mut AsyncPgConnection,
    step: &Step,
    effect: &dyn Effect,
) -> Result<Fenced<()>, EffectError> {
    let failed = |error| EffectError::Store(StoreError::postgres_read(error));
    effect.run(&mut Transaction::Postgres(connection)).await?;
    // Behind the effect: if its code has passed over an error of the database, the transaction can only
    // be rolled back, and this says so, which a commit would not.
    let n = step.n.saturating_add(1);
    let moved = diesel::sql_query(STEP)
        .bind::<Text, _>(&step.lease.name)
        .bind::<BigInt, _>(step.lease.token)
        .bind::<Text, _>(&step.follower)
        .bind::<Nullable<BigInt>, _>(step.revision)
        .bind::<BigInt, _>(n)
        .bind::<BigInt, _>(step.to.0)
        .bind::<Integer, _>(i32::try_from(step.begun).unwrap_or(i32::MAX))
        .prepared()
        .execute(connection)
        .await
        .map_err(failed)?;
    if moved == 0 {
        return Ok(Fenced::Lost);
    }
    match &step.also {
        Also::Nothing => {}
        Also::Rebuild => rebuild(connection, &step.follower).await.map_err(failed)?,
        Also::DeadLetter(letter) => {
            follower_letters::insert(connection, (**letter).clone()).await?;
        }
        Also::Replayed(letter) => replayed(connection, *letter).await.map_err(failed)?,
        Also::ReplayFailed(letter) => {
            replayed(connection, letter.id).await.map_err(failed)?;
            follower_letters::insert(connection, (**letter).clone()).await?;
        }
    }
    if n % KEPT == 0 {
        diesel::sql_query(FORGET)
            .bind::<Text, _>(&step.follower)
            .bind::<BigInt, _>(n.saturating_sub(KEPT))
            .prepared()
            .execute(connection)
            .await
            .map_err(failed)?;
    }
    Ok(Fenced::Done(()))
}

async fn replayed(connection: &mut AsyncPgConnection, letter: Uuid) -> QueryResult<()> {
    diesel::delete(follower_replays::table.find(IdColumn(letter)))
        .execute(connection)
        .await?;
    Ok(())
}

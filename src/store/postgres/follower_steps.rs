//! The transaction of a step.

use super::follower_letters;
use super::schema::follower_replays;
use crate::store::StoreError;
use crate::store::followers::{Also, Step};
use crate::store::leases::Fenced;
use crate::store::rows::IdColumn;
use crate::store::transaction::{Effect, EffectError, Transaction};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// Positions that are kept before the newest.
const KEPT: i64 = 64;
/// The fence, the check of the record and the new position, which no other process may have stored: one
/// statement. The lock on the lease lasts until the commit.
const STEP: &str = "\
    WITH held AS MATERIALIZED ( \
        SELECT FROM leases WHERE name = $1 AND token = $2 FOR KEY SHARE \
    ), current AS MATERIALIZED ( \
        SELECT FROM followers WHERE name = $3 AND revision = $4 AND state = 'running' \
    ) \
    INSERT INTO follower_positions (follower, n, position) \
    SELECT $3, $5, $6 FROM held, current \
    WHERE $5 - 1 = (SELECT max(n) FROM follower_positions WHERE follower = $3) \
    ON CONFLICT DO NOTHING";

const FORGET: &str =
    "DELETE FROM follower_positions WHERE follower = $1 AND n < $2 AND n >= $2 - 256";

/// What it subscribes to today holds from the beginning. What failed or waits to be applied again comes
/// again with the rest, if the log still has it.
const REBUILD: [&str; 6] = [
    // The retention locks it before it looks for followers. `$1` is not needed.
    "SELECT $1::text FROM log_floor FOR SHARE",
    "DELETE FROM follower_declarations WHERE follower = $1 AND holds_from < \
         (SELECT max(holds_from) FROM follower_declarations WHERE follower = $1)",
    "UPDATE follower_declarations SET holds_from = 0 WHERE follower = $1",
    "DELETE FROM dead_letters AS letter \
     WHERE cause = 'follower' AND origin = $1 AND state = 'dead' \
       AND EXISTS (SELECT FROM user_interactions AS event \
                   WHERE event.event_id = letter.event_id \
                     AND event.bucket = eclusa_bucket(letter.event_id))",
    "DELETE FROM follower_replays AS replay \
     WHERE follower = $1 \
       AND EXISTS (SELECT FROM user_interactions AS event \
                   WHERE event.event_id = (replay.event->>'id')::uuid \
                     AND event.bucket = eclusa_bucket((replay.event->>'id')::uuid))",
    "UPDATE followers \
     SET rebuild = false, revision = revision + 1, changed_at = clock_timestamp(), \
         complete_since = (SELECT f.complete_since FROM log_floor AS f) \
     WHERE name = $1",
];

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
        .bind::<BigInt, _>(step.revision)
        .bind::<BigInt, _>(n)
        .bind::<BigInt, _>(step.to.0)
        .execute(connection)
        .await
        .map_err(failed)?;
    if moved == 0 {
        return Ok(Fenced::Lost);
    }
    match &step.also {
        Also::Nothing => {}
        Also::Rebuild => {
            for statement in REBUILD {
                diesel::sql_query(statement)
                    .bind::<Text, _>(&step.follower)
                    .execute(connection)
                    .await
                    .map_err(failed)?;
            }
        }
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

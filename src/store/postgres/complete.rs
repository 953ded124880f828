//! Completing a run inside the transaction of its handler.

use super::prepared::Prepare;
use super::processed;
use super::reaction_queue::finish_in;
use crate::store::reactions::{ClaimOutcome, Completed, Ending, FinishedClaim};
use diesel::sql_types::{BigInt, Integer, Text, Uuid as UuidType};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::time::Duration;

/// The row is unique: while another transaction has inserted it and not ended, this waits for it.
const FIRST: &str = "\
    WITH ended AS ( \
        INSERT INTO reaction_runs (reaction, position, epoch, event_id, state, attempts, finished_at, worker) \
        SELECT $1, $2, e.epoch, $3, 'succeeded', 1, clock_timestamp(), $4 \
        FROM (SELECT epoch FROM reaction_epochs WHERE from_position < $2 \
              ORDER BY from_position DESC LIMIT 1) AS e \
        ON CONFLICT DO NOTHING RETURNING reaction \
    ) \
    INSERT INTO reaction_counts (reaction, succeeded) SELECT reaction, 1 FROM ended";

/// Stores that the run has succeeded, in the transaction that is open on this connection. `false` if the run has an
/// outcome already, or another attempt has taken it over: the transaction must be rolled back.
///
/// # Errors
/// The database's.
pub async fn complete(
    connection: &mut AsyncPgConnection,
    completed: &Completed,
) -> QueryResult<bool> {
    let Some(token) = completed.token else {
        let inserted = sql_query(FIRST)
            .bind::<Integer, _>(completed.reaction)
            .bind::<BigInt, _>(completed.position.0)
            .bind::<UuidType, _>(completed.event_id)
            .bind::<Text, _>(&*completed.worker)
            .prepared()
            .execute(connection)
            .await?;
        return Ok(inserted == 1);
    };
    let finished = FinishedClaim {
        position: completed.position,
        event_id: completed.event_id,
        token,
        attempt: completed.attempt,
        took: Duration::ZERO,
        outcome: ClaimOutcome::Ended {
            ending: Ending::Succeeded,
            error: None,
        },
    };
    processed::hold_marks(connection).await?;
    let finished = [finished];
    let stored = finish_in(connection, completed.reaction, &completed.worker, &finished).await?;
    Ok(stored == 1)
}

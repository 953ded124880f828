//! Completing a run inside the transaction of its handler.

use super::leases;
use super::reaction_queue::finish;
use super::reaction_runs::add_succeeded;
use super::schema::reaction_runs as runs;
use crate::store::reactions::{ClaimOutcome, Completed, Ending, FinishedClaim};
use diesel::prelude::*;
use std::time::Duration;

/// Stores that the run has succeeded, in the transaction that is open on this connection. `false` if the run has an
/// outcome already, or another attempt has taken it over: the transaction must be rolled back.
///
/// # Errors
/// The database's.
pub fn complete(connection: &mut SqliteConnection, completed: &Completed) -> QueryResult<bool> {
    let Some(token) = completed.token else {
        let now = leases::now(connection)?;
        let inserted = diesel::insert_into(runs::table)
            .values((
                runs::reaction.eq(completed.reaction),
                runs::position.eq(completed.position.0),
                runs::event_id.eq(completed.event_id.as_bytes().as_slice()),
                runs::state.eq(Ending::Succeeded.as_str()),
                runs::attempts.eq(1),
                runs::finished_at.eq(now),
                runs::worker.eq(&*completed.worker),
            ))
            .on_conflict_do_nothing()
            .execute(connection)?;
        if inserted == 1 {
            add_succeeded(connection, completed.reaction, 1)?;
        }
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
    let stored = finish(
        connection,
        completed.reaction,
        &completed.worker,
        &[finished],
    )?;
    Ok(stored == 1)
}

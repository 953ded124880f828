//! First outcomes of runs, in the transaction of a lane's step.

use super::leases;
use super::processed;
use super::reopened;
use super::schema::{reaction_counts as counts, reaction_queue as queue, reaction_runs as runs};
use crate::store::StoreError;
use crate::store::reactions::{Due, Ending, FirstOutcomes, QueuedRun, kept_error, kept_history};
use crate::supervision::failpoint;
use diesel::dsl::exists;
use diesel::prelude::*;
use std::time::Duration;

/// When a run is due that waits for an earlier one of its order key.
pub(super) const NEVER: i64 = i64::MAX;

pub(in crate::store) fn record(
    connection: &mut SqliteConnection,
    outcomes: &FirstOutcomes,
) -> Result<(), StoreError> {
    store(connection, outcomes).map_err(StoreError::sqlite)?;
    failpoint::hit("reaction.recorded");
    Ok(())
}

/// A row that is there already stands for a decision: a cancellation, or one that the handler has stored itself.
fn store(connection: &mut SqliteConnection, outcomes: &FirstOutcomes) -> QueryResult<()> {
    let now = leases::now(connection)?;
    let mut succeeded = 0;
    for run in &outcomes.ended {
        let inserted = diesel::insert_into(runs::table)
            .values((
                runs::reaction.eq(outcomes.reaction),
                runs::position.eq(run.position.0),
                runs::event_id.eq(run.event_id.as_bytes().as_slice()),
                runs::state.eq(run.ending.as_str()),
                runs::attempts.eq(count(run.attempts)),
                runs::finished_at.eq(now),
                runs::duration_us.eq(micros(run.took)),
                runs::worker.eq(&*outcomes.worker),
                runs::error.eq(run.error.as_deref().map(kept_error)),
            ))
            .on_conflict_do_nothing()
            .execute(connection)?;
        if inserted > 0 {
            match run.ending {
                Ending::Succeeded => succeeded += 1,
                Ending::Failed => processed::unmark(connection, run.position.0)?,
                Ending::Cancelled => {}
            }
        }
    }
    add_succeeded(connection, outcomes.reaction, succeeded)?;
    // Of those with one order key the first is due.
    let mut queued: Vec<&QueuedRun> = outcomes.queued.iter().collect();
    queued.sort_by_key(|run| run.position);
    for run in queued {
        let inserted = diesel::insert_into(runs::table)
            .values((
                runs::reaction.eq(outcomes.reaction),
                runs::position.eq(run.position.0),
                runs::event_id.eq(run.event.event_id.as_bytes().as_slice()),
                runs::state.eq("open"),
                runs::attempts.eq(count(run.attempts)),
                runs::worker.eq(&*outcomes.worker),
            ))
            .on_conflict_do_nothing()
            .execute(connection)?;
        if inserted == 0 {
            continue;
        }
        processed::unmark(connection, run.position.0)?;
        let due = match run.due {
            _ if waits(connection, outcomes.reaction, run.order_key.as_deref())? => NEVER,
            Due::After(time) => now.saturating_add(micros(time)),
            Due::At(time) => time.timestamp_micros(),
        };
        diesel::insert_into(queue::table)
            .values((
                queue::reaction.eq(outcomes.reaction),
                queue::position.eq(run.position.0),
                queue::event_id.eq(run.event.event_id.as_bytes().as_slice()),
                queue::event.eq(json(&*run.event)),
                queue::order_key.eq(&run.order_key),
                queue::unique_key.eq(&run.unique_key),
                queue::due.eq(due),
                queue::attempts.eq(count(run.attempts)),
                queue::alone.eq(run.alone),
                queue::history.eq(json(&kept_history(run.history.clone()))),
            ))
            .execute(connection)?;
    }
    reopened::release(connection, outcomes.reaction, &outcomes.released)
}

/// Whether another run of the key is in the queue.
pub(super) fn waits(
    connection: &mut SqliteConnection,
    reaction: i32,
    order_key: Option<&str>,
) -> QueryResult<bool> {
    let Some(key) = order_key else {
        return Ok(false);
    };
    let earlier = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::order_key.eq(key));
    diesel::select(exists(earlier)).get_result(connection)
}

/// Counts runs that have succeeded; a number below zero for those that are open again.
pub(super) fn add_succeeded(
    connection: &mut SqliteConnection,
    reaction: i32,
    succeeded: i64,
) -> QueryResult<()> {
    if succeeded != 0 {
        diesel::insert_into(counts::table)
            .values((
                counts::reaction.eq(reaction),
                counts::succeeded.eq(succeeded),
            ))
            .on_conflict(counts::reaction)
            .do_update()
            .set(counts::succeeded.eq(counts::succeeded + succeeded))
            .execute(connection)?;
    }
    Ok(())
}

pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn micros(took: Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}

/// A row that was read as JSON can be written as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

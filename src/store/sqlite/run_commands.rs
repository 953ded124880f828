//! Cancelling runs, and opening them again.

use super::connection::SqliteFailure;
use super::reaction_queue::promote;
use super::reaction_runs::{NEVER, add_succeeded, count, json, micros, waits};
use super::runs::EndedRow;
use super::schema::{reaction_queue as queue, reaction_runs as runs, reactions};
use super::{leases, processed};
use crate::store::commit_log::Position;
use crate::store::reactions::{Attempt, kept_error, kept_history, lost_attempt};
use crate::store::rows::{IdColumn, JsonColumn};
use crate::store::runs::{CancelledRun, ReopenedRun, RunRecord, RunState};
use crate::store::{ErrorKind, StoreError};
use chrono::Utc;
use diesel::dsl::exists;
use diesel::prelude::*;
use uuid::Uuid;

type QueuedRow = (
    i32,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    JsonColumn,
);

fn is_known(connection: &mut SqliteConnection, reaction: i32) -> QueryResult<bool> {
    diesel::select(exists(reactions::table.find(reaction))).get_result(connection)
}

pub(super) fn cancel(
    connection: &mut SqliteConnection,
    reaction: i32,
    position: Position,
    event_id: Uuid,
    reason: &str,
) -> Result<CancelledRun, SqliteFailure> {
    if !is_known(connection, reaction)? {
        let message = format!("the reaction with the number {reaction} was removed");
        return Err(StoreError::new(ErrorKind::Operator, message).into());
    }
    let now = leases::now(connection)?;
    let reason = kept_error(reason);
    let inserted = diesel::insert_into(runs::table)
        .values((
            runs::reaction.eq(reaction),
            runs::position.eq(position.0),
            runs::event_id.eq(event_id.as_bytes().as_slice()),
            runs::state.eq(RunState::Cancelled.as_str()),
            runs::attempts.eq(0),
            runs::finished_at.eq(now),
            runs::error.eq(&reason),
        ))
        .on_conflict_do_nothing()
        .execute(connection)?;
    if inserted == 1 {
        processed::mark_ended(connection, &[position.0])?;
        return Ok(CancelledRun::Done);
    }
    let run = runs::table.find((reaction, position.0));
    let queued = queue::table.find((reaction, position.0));
    let row: Option<QueuedRow> = queued
        .select((
            queue::attempts,
            queue::due,
            queue::token,
            queue::worker,
            queue::order_key,
            queue::history,
        ))
        .first(connection)
        .optional()?;
    let Some((attempts, due, token, worker, order_key, history)) = row else {
        let state: String = run.select(runs::state).first(connection)?;
        return Ok(CancelledRun::Ended(RunState::parse(&state)));
    };
    if token.is_some() && due > now {
        return Ok(CancelledRun::Running);
    }
    let mut history: Vec<Attempt> = history.parse()?;
    if token.is_some() {
        history.push(lost_attempt(
            attempts,
            Utc::now(),
            worker.unwrap_or_default(),
        ));
    }
    diesel::delete(queued).execute(connection)?;
    let history = (!history.is_empty()).then(|| json(&kept_history(history)));
    diesel::update(run)
        .set((
            runs::state.eq(RunState::Cancelled.as_str()),
            runs::attempts.eq(attempts),
            runs::finished_at.eq(Some(now)),
            runs::duration_us.eq(None::<i64>),
            runs::worker.eq(None::<String>),
            runs::error.eq(Some(&reason)),
            runs::history.eq(history),
        ))
        .execute(connection)?;
    if let Some(key) = order_key {
        promote(connection, reaction, &key, now)?;
    }
    processed::mark_ended(connection, &[position.0])?;
    Ok(CancelledRun::Done)
}

pub(super) fn reopen(
    connection: &mut SqliteConnection,
    reaction: i32,
    mut wanted: Vec<ReopenedRun>,
) -> QueryResult<u64> {
    if !is_known(connection, reaction)? {
        return Ok(0);
    }
    let now = leases::now(connection)?;
    let (mut opened, mut succeeded) = (0, 0);
    // Of those with one order key the first is due.
    wanted.sort_by_key(|run| run.position);
    for run in wanted {
        let row = runs::table.find((reaction, run.position.0));
        let ended: Option<EndedRow> = row
            .filter(runs::state.ne("open"))
            .filter(runs::event_id.eq(IdColumn(run.event.event_id)))
            .first(connection)
            .optional()?;
        let Some(ended) = ended else {
            continue;
        };
        let ended = RunRecord::try_from(ended)?;
        diesel::update(row)
            .set((
                runs::state.eq("open"),
                runs::finished_at.eq(None::<i64>),
                runs::duration_us.eq(None::<i64>),
                runs::worker.eq(None::<String>),
                runs::error.eq(None::<String>),
                runs::history.eq(None::<String>),
            ))
            .execute(connection)?;
        let due = match waits(connection, reaction, run.order_key.as_deref())? {
            true => NEVER,
            false => now.saturating_add(micros(run.after)),
        };
        diesel::insert_into(queue::table)
            .values((
                queue::reaction.eq(reaction),
                queue::position.eq(run.position.0),
                queue::event_id.eq(run.event.event_id.as_bytes().as_slice()),
                queue::event.eq(json(&run.event)),
                queue::order_key.eq(&run.order_key),
                queue::unique_key.eq(&run.unique_key),
                queue::due.eq(due),
                queue::attempts.eq(count(ended.attempts)),
                queue::attempts_before.eq(count(ended.attempts)),
                queue::history.eq(json(&kept_history(ended.whole_history()))),
                // It waits for the lane of its key, see `reopened`.
                queue::reopened.eq(run.order_key.is_some() || run.unique_key.is_some()),
            ))
            .execute(connection)?;
        processed::unmark(connection, run.position.0)?;
        opened += 1;
        if ended.state == RunState::Succeeded {
            succeeded += 1;
        }
    }
    add_succeeded(connection, reaction, -succeeded)?;
    Ok(opened)
}

//! The queue of runs that are due later: claims, and what becomes of them.

use super::leases;
use super::processed;
use super::reaction_runs::{NEVER, add_succeeded, json, micros};
use super::schema::{reaction_queue as queue, reaction_runs as runs, reactions};
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::reactions::{
    Attempt, Claim, ClaimOutcome, Claimed, ClaimedRun, Ending, FinishedClaim, kept_error,
    kept_history, lost_attempt,
};
use crate::store::rows::{JsonColumn, TimeColumn};
use chrono::Utc;
use diesel::dsl::{exists, max, min};
use diesel::prelude::*;
use std::time::Duration;

type QueueRow = (
    i64,
    JsonColumn,
    i32,
    i32,
    bool,
    Option<i64>,
    Option<String>,
    Option<TimeColumn>,
    JsonColumn,
);

pub(super) fn claim(connection: &mut SqliteConnection, claim: &Claim) -> QueryResult<Claimed> {
    let now = leases::now(connection)?;
    let paused: Option<bool> = reactions::table
        .find(claim.reaction)
        .select(reactions::paused)
        .first(connection)
        .optional()?;
    let mut claimed = Claimed::default();
    if paused == Some(false) {
        let limit = if claim.alone { 1 } else { claim.limit };
        let due = queue::table
            .filter(queue::reaction.eq(claim.reaction))
            .filter(queue::due.le(now))
            .filter(queue::reopened.eq(false))
            .filter(queue::alone.or(queue::token.is_not_null()).eq(claim.alone))
            .order(queue::due)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<QueueRow> = due
            .select((
                queue::position,
                queue::event,
                queue::attempts,
                queue::attempts_before,
                queue::alone,
                queue::token,
                queue::worker,
                queue::claimed_at,
                queue::history,
            ))
            .load(connection)?;
        for row in rows {
            claimed.runs.push(claim_one(connection, claim, now, row)?);
        }
    }
    let next = |connection: &mut SqliteConnection, alone: bool| {
        let due: Option<i64> = queue::table
            .filter(queue::reaction.eq(claim.reaction))
            .filter(queue::alone.or(queue::token.is_not_null()).eq(alone))
            .filter(queue::due.lt(NEVER))
            .filter(queue::reopened.eq(false))
            .select(min(queue::due))
            .first(connection)?;
        QueryResult::Ok(due.map(|due| due.saturating_sub(now)))
    };
    let positive = |micros: i64| Duration::from_micros(micros.max(0).unsigned_abs());
    let (together, alone) = (next(connection, false)?, next(connection, true)?);
    claimed.next = together.map(positive);
    claimed.next_alone = alone.map(positive);
    let overdue = together
        .into_iter()
        .chain(alone)
        .map(|next| positive(next.saturating_neg()));
    claimed.overdue = overdue.max().unwrap_or_default();
    let reopened = queue::table
        .filter(queue::reaction.eq(claim.reaction))
        .filter(queue::reopened);
    claimed.reopened = diesel::select(exists(reopened)).get_result(connection)?;
    Ok(claimed)
}

fn claim_one(
    connection: &mut SqliteConnection,
    claim: &Claim,
    now: i64,
    row: QueueRow,
) -> QueryResult<ClaimedRun> {
    let (
        position,
        event,
        attempts,
        mut attempts_before,
        was_alone,
        lost,
        worker,
        claimed_at,
        history,
    ) = row;
    let mut history: Vec<Attempt> = history.parse()?;
    if lost.is_some() {
        // Another run may have ended the process, unless it had its turn.
        attempts_before += i32::from(!was_alone);
        let at = claimed_at.map_or_else(Utc::now, |at| at.0);
        history.push(lost_attempt(attempts, at, worker.unwrap_or_default()));
    }
    // A token is higher than all before it in the file.
    let highest: Option<i64> = queue::table.select(max(queue::token)).first(connection)?;
    let token = highest.unwrap_or(0).max(now).saturating_add(1);
    let attempts = attempts.saturating_add(1);
    diesel::update(queue::table.find((claim.reaction, position)))
        .set((
            queue::due.eq(now.saturating_add(micros(claim.lease))),
            queue::attempts.eq(attempts),
            queue::attempts_before.eq(attempts_before),
            queue::token.eq(Some(token)),
            queue::worker.eq(Some(&*claim.worker)),
            queue::claimed_at.eq(Some(now)),
            queue::alone.eq(claim.alone),
            queue::history.eq(json(&kept_history(history))),
        ))
        .execute(connection)?;
    Ok(ClaimedRun {
        position: Position(position),
        event: event.parse::<StoredEvent>()?,
        attempts: attempts.unsigned_abs(),
        attempts_before: attempts_before.unsigned_abs(),
        token,
    })
}

pub(super) fn finish(
    connection: &mut SqliteConnection,
    reaction: i32,
    worker: &str,
    finished: &[FinishedClaim],
) -> QueryResult<u64> {
    let now = leases::now(connection)?;
    let (mut stored, mut succeeded) = (0, 0);
    let mut well = Vec::new();
    for one in finished {
        let own = queue::table
            .find((reaction, one.position.0))
            .filter(queue::token.eq(one.token));
        let row: Option<(i32, bool, Option<String>, JsonColumn)> = own
            .select((
                queue::attempts,
                queue::alone,
                queue::order_key,
                queue::history,
            ))
            .first(connection)
            .optional()?;
        let Some((attempts, alone, order_key, history)) = row else {
            continue;
        };
        stored += 1;
        let mut history: Vec<Attempt> = history.parse()?;
        match &one.outcome {
            ClaimOutcome::Ended { ending, error } => {
                diesel::delete(own).execute(connection)?;
                let history = (!history.is_empty()).then(|| json(&history));
                diesel::update(runs::table.find((reaction, one.position.0)))
                    .set((
                        runs::state.eq(ending.as_str()),
                        runs::attempts.eq(attempts),
                        runs::finished_at.eq(Some(now)),
                        runs::duration_us.eq(Some(micros(one.took))),
                        runs::worker.eq(Some(worker)),
                        runs::error.eq(error.as_deref().map(kept_error)),
                        runs::history.eq(history),
                    ))
                    .execute(connection)?;
                if *ending == Ending::Succeeded {
                    succeeded += 1;
                }
                if *ending != Ending::Failed {
                    well.push(one.position.0);
                }
            }
            ClaimOutcome::Again {
                after,
                error,
                unspent,
            } => {
                if !unspent {
                    history.push(Attempt {
                        attempt: one.attempt,
                        at: Utc::now(),
                        worker: worker.to_owned(),
                        error: kept_error(error),
                        duration_ms: Some(one.took.as_secs_f64() * 1_000.0),
                    });
                }
                let due = match &order_key {
                    Some(key) if is_behind(connection, reaction, key, one.position.0)? => NEVER,
                    _ => now.saturating_add(micros(*after)),
                };
                let spent = attempts.saturating_sub(i32::from(*unspent));
                diesel::update(own)
                    .set((
                        queue::due.eq(due),
                        queue::token.eq(None::<i64>),
                        queue::worker.eq(None::<String>),
                        // An attempt that counts shows that it does not end its process.
                        queue::alone.eq(alone && *unspent),
                        queue::attempts.eq(spent),
                        queue::history.eq(json(&kept_history(history))),
                    ))
                    .execute(connection)?;
            }
        }
        if let Some(key) = order_key {
            promote(connection, reaction, &key, now)?;
        }
    }
    processed::mark_ended(connection, &well)?;
    add_succeeded(connection, reaction, succeeded)?;
    Ok(stored)
}

/// Whether a run has an earlier one of its key before it, because that was opened again.
fn is_behind(
    connection: &mut SqliteConnection,
    reaction: i32,
    key: &str,
    position: i64,
) -> QueryResult<bool> {
    let earlier = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::order_key.eq(key))
        .filter(queue::position.lt(position));
    diesel::select(exists(earlier)).get_result(connection)
}

/// The first run of a key is due as soon as the one before it has ended.
pub(super) fn promote(
    connection: &mut SqliteConnection,
    reaction: i32,
    key: &str,
    now: i64,
) -> QueryResult<()> {
    let first: Option<i64> = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::order_key.eq(key))
        .select(min(queue::position))
        .first(connection)?;
    if let Some(position) = first {
        let waiting = queue::table
            .find((reaction, position))
            .filter(queue::due.eq(NEVER));
        diesel::update(waiting)
            .set(queue::due.eq(now))
            .execute(connection)?;
    }
    Ok(())
}

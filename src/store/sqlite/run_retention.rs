//! Deleting outcomes that are old, slice by slice.

use super::connection::SqliteFailure;
use super::retention::DAY_MICROS;
use super::schema::{reaction_runs as runs, reactions};
use super::{leases, reaction_commands};
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::ExpiredRuns;
use diesel::dsl::{exists, min};
use diesel::prelude::*;

/// Rows that are looked at of each reaction.
const SLICE: i64 = 5_000;

/// Deletes what is old of the first outcomes of each reaction. Runs end in the order of positions, roughly: if none of
/// the first ones is old, those behind them wait until they are.
pub(super) fn expire(
    connection: &mut SqliteConnection,
    lease: &Lease,
    keep: Option<u32>,
) -> Result<Fenced<ExpiredRuns>, SqliteFailure> {
    if !leases::is_held(connection, lease)? {
        return Ok(Fenced::Lost);
    }
    let now = leases::now(connection)?;
    let cutoff = keep.map(|keep| now.saturating_sub(i64::from(keep).saturating_mul(DAY_MICROS)));
    let mut expired = ExpiredRuns::default();
    let mut before = i32::MIN;
    loop {
        let next: Option<i32> = runs::table
            .filter(runs::reaction.gt(before))
            .select(min(runs::reaction))
            .first(connection)?;
        let Some(reaction) = next else {
            return Ok(Fenced::Done(expired));
        };
        before = reaction;
        let is_known = diesel::select(exists(reactions::table.find(reaction)));
        let deleted = match (is_known.get_result::<bool>(connection)?, cutoff) {
            (false, _) => match reaction_commands::release(connection, reaction)? {
                0 => delete(connection, reaction, None)?,
                released => released,
            },
            (true, Some(cutoff)) => delete(connection, reaction, Some(cutoff))?,
            (true, None) => 0,
        };
        expired.deleted = expired.deleted.saturating_add(deleted);
        expired.more |= deleted > 0;
    }
}

/// Deletes of the first rows of a reaction those that ended before a time, or all.
fn delete(
    connection: &mut SqliteConnection,
    reaction: i32,
    cutoff: Option<i64>,
) -> QueryResult<u64> {
    let last: Vec<i64> = runs::table
        .filter(runs::reaction.eq(reaction))
        .order(runs::position)
        .limit(SLICE)
        .select(runs::position)
        .load(connection)?;
    let Some(last) = last.last() else {
        return Ok(0);
    };
    let slice = runs::table
        .filter(runs::reaction.eq(reaction))
        .filter(runs::position.le(*last));
    let deleted = match cutoff {
        // Those that are open have no time.
        Some(cutoff) => {
            diesel::delete(slice.filter(runs::finished_at.lt(cutoff))).execute(connection)?
        }
        None => diesel::delete(slice).execute(connection)?,
    };
    Ok(deleted as u64)
}

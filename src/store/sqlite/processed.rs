//! The mark `processed` of the log.

use super::runs::NOT_SUCCEEDED;
use super::schema::{
    follower_positions as positions, reaction_runs as runs, reactions, user_interactions as events,
};
use crate::store::StoreError;
use crate::store::reactions::MarkProcessed;
use diesel::dsl::{exists, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;

const OPEN: [&str; 2] = ["open", "failed"];

pub(in crate::store) fn mark(
    connection: &mut SqliteConnection,
    stretch: MarkProcessed,
) -> Result<(), StoreError> {
    mark_in(connection, stretch).map_err(StoreError::sqlite)
}

fn mark_in(connection: &mut SqliteConnection, stretch: MarkProcessed) -> QueryResult<()> {
    let open: Vec<i64> = runs::table
        .filter(runs::reaction.eq_any(reactions::table.select(reactions::id)))
        .filter(runs::state.eq_any(OPEN))
        .filter(sql::<Bool>(NOT_SUCCEEDED))
        .filter(runs::position.gt(stretch.after.0))
        .filter(runs::position.le(stretch.until.0))
        .select(runs::position)
        .load(connection)?;
    let stretch = events::table
        .filter(events::id.gt(stretch.after.0))
        .filter(events::id.le(stretch.until.0))
        .filter(events::processed.eq(false));
    if open.is_empty() {
        diesel::update(stretch)
            .set(events::processed.eq(true))
            .execute(connection)?;
        return Ok(());
    }
    let ids: Vec<i64> = stretch.select(events::id).load(connection)?;
    let open = std::collections::HashSet::<i64>::from_iter(open);
    for id in ids.into_iter().filter(|id| !open.contains(id)) {
        diesel::update(events::table.find(id))
            .set(events::processed.eq(true))
            .execute(connection)?;
    }
    Ok(())
}

/// The event has an open or a failed run.
pub(super) fn unmark(connection: &mut SqliteConnection, position: i64) -> QueryResult<()> {
    let marked = events::table
        .find(position)
        .filter(events::processed.eq(true));
    diesel::update(marked)
        .set(events::processed.eq(false))
        .execute(connection)?;
    Ok(())
}

/// A run of this event has ended well. What lies behind the position up to which stretches are marked is marked with
/// its stretch.
pub(super) fn mark_ended(connection: &mut SqliteConnection, position: i64) -> QueryResult<()> {
    let marked_to: Option<i64> = positions::table
        .filter(positions::follower.eq("reactions:processed"))
        .order(positions::n.desc())
        .select(positions::position)
        .first(connection)
        .optional()?;
    let open = runs::table
        .filter(runs::reaction.eq_any(reactions::table.select(reactions::id)))
        .filter(runs::state.eq_any(OPEN))
        .filter(sql::<Bool>(NOT_SUCCEEDED))
        .filter(runs::position.eq(position));
    if marked_to.is_some_and(|to| position <= to)
        && !diesel::select(exists(open)).get_result::<bool>(connection)?
    {
        diesel::update(events::table.find(position))
            .set(events::processed.eq(true))
            .execute(connection)?;
    }
    Ok(())
}

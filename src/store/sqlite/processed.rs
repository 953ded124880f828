//! The mark `processed` of the log.

use super::follower_records::read_types;
use super::runs::NOT_SUCCEEDED;
use super::schema::{
    follower_declarations as declarations, reaction_marks as marks, reaction_positions as reached,
    reaction_runs as runs, reactions, removed_reactions as removed, user_interactions as events,
};
use crate::store::StoreError;
use crate::store::commit_log::TypePatterns;
use crate::store::reactions::{MarkProcessed, lane_name};
use diesel::dsl::{exists, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use std::collections::HashSet;

const OPEN: [&str; 2] = ["open", "failed"];

pub(in crate::store) fn mark(
    connection: &mut SqliteConnection,
    stretch: MarkProcessed,
) -> Result<(), StoreError> {
    mark_in(connection, stretch).map_err(StoreError::sqlite)
}

fn mark_in(connection: &mut SqliteConnection, stretch: MarkProcessed) -> QueryResult<()> {
    if !move_marks(connection, stretch)? {
        return Ok(());
    }
    let open: Vec<i64> = runs::table
        .filter(runs::reaction.eq_any(reactions::table.select(reactions::id)))
        .filter(runs::state.eq_any(OPEN))
        .filter(sql::<Bool>(NOT_SUCCEEDED))
        .filter(runs::position.gt(stretch.after.0))
        .filter(runs::position.le(stretch.until.0))
        .select(runs::position)
        .load(connection)?;
    let undecided = undecided(connection, stretch.until.0)?;
    let due = events::table
        .filter(events::id.gt(stretch.after.0))
        .filter(events::id.le(stretch.until.0))
        .filter(events::processed.eq(false));
    if open.is_empty() && undecided.is_empty() {
        diesel::update(due)
            .set(events::processed.eq(true))
            .execute(connection)?;
        return Ok(());
    }
    let rows: Vec<(i64, String)> = due
        .select((events::id, events::event_type))
        .load(connection)?;
    let open = HashSet::<i64>::from_iter(open);
    for (id, event_type) in rows {
        if !open.contains(&id) && !is_undecided(&undecided, id, &event_type) {
            diesel::update(events::table.find(id))
                .set(events::processed.eq(true))
                .execute(connection)?;
        }
    }
    Ok(())
}

/// Moves the reactions of a stretch to its end, or as far as they have decided; whether there are any. A removed one
/// is forgotten behind the last event that it may have kept from being marked.
fn move_marks(connection: &mut SqliteConnection, stretch: MarkProcessed) -> QueryResult<bool> {
    let ahead: Vec<(i32, i64, Option<i64>)> = reached::table
        .filter(reached::marked_to.ge(stretch.after.0))
        .filter(reached::marked_to.lt(stretch.until.0))
        .select((reached::reaction, reached::marked_to, reached::decided_to))
        .load(connection)?;
    let mut moved = false;
    for (reaction, marked_to, decided_to) in ahead {
        let until = decided_to.map_or(stretch.until.0, |decided| decided.min(stretch.until.0));
        if until <= marked_to {
            continue;
        }
        moved = true;
        let mark = marks::table.find(reaction);
        let done = removed::table
            .find(reaction)
            .filter(removed::until.le(until));
        if decided_to.is_none() && diesel::delete(done).execute(connection)? == 1 {
            diesel::delete(mark).execute(connection)?;
        } else {
            diesel::update(mark)
                .set(marks::marked_to.eq(until))
                .execute(connection)?;
        }
    }
    Ok(moved)
}

/// The types that reactions have still to decide up to a position, and behind where. Events that a declaration holds for
/// lie behind its position.
fn undecided(
    connection: &mut SqliteConnection,
    until: i64,
) -> QueryResult<Vec<(i64, TypePatterns)>> {
    let behind: Vec<(Option<String>, Option<i64>)> = reached::table
        .filter(reached::decided_to.lt(until))
        .select((reached::name, reached::decided_to))
        .load(connection)?;
    let mut undecided = Vec::new();
    for (name, decided_to) in behind {
        let (Some(name), Some(decided_to)) = (name, decided_to) else {
            continue;
        };
        // The lane with the number 0 has all declarations.
        let declared: Vec<(i64, String)> = declarations::table
            .filter(declarations::follower.eq(lane_name(&name, 0)))
            .filter(declarations::holds_from.lt(until))
            .select((declarations::holds_from, declarations::types))
            .load(connection)?;
        for (holds_from, types) in declared {
            let types = TypePatterns::new(read_types(&types)?);
            undecided.push((decided_to.max(holds_from), types));
        }
    }
    Ok(undecided)
}

fn is_undecided(undecided: &[(i64, TypePatterns)], position: i64, event_type: &str) -> bool {
    undecided
        .iter()
        .any(|(behind, types)| *behind < position && types.matches(event_type))
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

/// Runs of these events have ended well. What a reaction has still to decide is marked with a later stretch.
pub(super) fn mark_ended(connection: &mut SqliteConnection, positions: &[i64]) -> QueryResult<()> {
    let Some(last) = positions.iter().max() else {
        return Ok(());
    };
    let undecided = undecided(connection, *last)?;
    for position in positions {
        let open = runs::table
            .filter(runs::reaction.eq_any(reactions::table.select(reactions::id)))
            .filter(runs::state.eq_any(OPEN))
            .filter(sql::<Bool>(NOT_SUCCEEDED))
            .filter(runs::position.eq(position));
        if diesel::select(exists(open)).get_result::<bool>(connection)? {
            continue;
        }
        let event = events::table.find(position);
        let event_type: Option<String> = event
            .select(events::event_type)
            .first(connection)
            .optional()?;
        if event_type.is_some_and(|of_type| !is_undecided(&undecided, *position, &of_type)) {
            diesel::update(event)
                .set(events::processed.eq(true))
                .execute(connection)?;
        }
    }
    Ok(())
}

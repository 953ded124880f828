//! Commands to reactions.

use super::follower_records::floor;
use super::processed;
use super::reactions::with_lanes;
use super::runs::NOT_SUCCEEDED;
use super::schema::{followers, reaction_runs as runs, reactions, removed_reactions as removed};
use super::{leases, reactions as records, read};
use crate::store::followers::{Commanded, FollowerState};
use crate::store::reactions::ReactionRecord;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

/// Outcomes that are deleted at a time.
const SLICE: i64 = 1_000;

fn find(connection: &mut SqliteConnection, name: &str) -> QueryResult<Option<ReactionRecord>> {
    let row: Option<records::ReactionRow> = reactions::table
        .filter(reactions::name.eq(name))
        .first(connection)
        .optional()?;
    row.map(|row| with_lanes(connection, row)).transpose()
}

pub(super) fn pause(
    connection: &mut SqliteConnection,
    name: &str,
    paused: bool,
) -> QueryResult<Commanded> {
    let Some(reaction) = find(connection, name)? else {
        return Ok(Commanded::Unknown);
    };
    if let Some(reason) = reaction.pause_refusal(paused) {
        return Ok(Commanded::Refused(reason));
    }
    diesel::update(reactions::table.find(reaction.id))
        .set(reactions::paused.eq(paused))
        .execute(connection)?;
    let now = leases::now(connection)?;
    for lane in reaction.lanes {
        let of_lane = followers::table.find(&lane.name);
        let revised = (
            followers::revision.eq(followers::revision + 1),
            followers::changed_at.eq(now),
        );
        match (paused, lane.state) {
            (true, FollowerState::Running) => {
                let stopped = (followers::state.eq(FollowerState::Paused.as_str()), revised);
                diesel::update(of_lane).set(stopped).execute(connection)?;
            }
            (false, FollowerState::Paused | FollowerState::Broken | FollowerState::Gapped) => {
                let complete_since = match lane.state {
                    FollowerState::Gapped => floor(connection)?,
                    _ => lane.complete_since.map(|day| day.to_string()),
                };
                let running = (
                    followers::state.eq(FollowerState::Running.as_str()),
                    followers::reason.eq(None::<String>),
                    followers::complete_since.eq(complete_since),
                    revised,
                );
                diesel::update(of_lane).set(running).execute(connection)?;
            }
            _ => {}
        }
    }
    Ok(Commanded::Done)
}

/// Also says which number it had.
pub(super) fn remove(
    connection: &mut SqliteConnection,
    name: &str,
) -> QueryResult<(Commanded, Option<i32>)> {
    let Some(reaction) = find(connection, name)? else {
        return Ok((Commanded::Unknown, None));
    };
    if let Some(reason) = reaction.removal_refusal() {
        return Ok((Commanded::Refused(reason), None));
    }
    let lanes = reaction.lanes.into_iter().map(|lane| lane.name);
    let lanes: Vec<String> = lanes.collect();
    diesel::delete(followers::table.filter(followers::name.eq_any(lanes))).execute(connection)?;
    diesel::insert_into(removed::table)
        .values((
            removed::id.eq(reaction.id),
            removed::until.eq(read::last_id(connection)?),
        ))
        .execute(connection)?;
    // The queue and the count go with it, the outcomes later.
    diesel::delete(reactions::table.find(reaction.id)).execute(connection)?;
    Ok((Commanded::Done, Some(reaction.id)))
}

/// Deletes a slice of what keeps events from being processed of a removed reaction, and marks these events. Returns how
/// many there were.
pub(super) fn release(connection: &mut SqliteConnection, reaction: i32) -> QueryResult<u64> {
    for state in ["open", "failed"] {
        let undone: Vec<i64> = runs::table
            .filter(runs::reaction.eq(reaction))
            .filter(runs::state.eq(state))
            .filter(sql::<Bool>(NOT_SUCCEEDED))
            .order(runs::position)
            .limit(SLICE)
            .select(runs::position)
            .load(connection)?;
        for position in &undone {
            diesel::delete(runs::table.find((reaction, *position))).execute(connection)?;
        }
        processed::mark_ended(connection, &undone)?;
        if !undone.is_empty() {
            return Ok(undone.len() as u64);
        }
    }
    Ok(0)
}

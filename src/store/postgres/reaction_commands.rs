//! Commands to reactions.

use super::commits::end;
use super::follower_commands::notify;
use super::follower_records::floor;
use super::reactions::with_lanes;
use super::removed_reactions;
use super::schema::{followers, reactions};
use super::transactions::{PATIENCE, in_transaction, limit_locks};
use crate::store::followers::{Commanded, FollowerState};
use crate::store::reactions::ReactionRecord;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Declarations and commands come one after the other, and no commit is numbered meanwhile.
const HOLD_NUMBERING: &str = "SELECT pg_advisory_xact_lock(7161677777369124866)";

/// The reaction as it is.
async fn find(
    connection: &mut AsyncPgConnection,
    name: &str,
) -> QueryResult<Option<ReactionRecord>> {
    let row = reactions::table.filter(reactions::name.eq(name));
    let rows = row.load(connection).await?;
    Ok(with_lanes(connection, rows).await?.pop())
}

pub(super) async fn pause(
    connection: &mut AsyncPgConnection,
    name: &str,
    paused: bool,
) -> QueryResult<Commanded> {
    in_transaction(connection, async |connection| {
        pause_in(connection, name, paused).await
    })
    .await
}

/// A gapped lane did not hold outcomes back, and does so again.
const NOT_PASSED: &str = "UPDATE reaction_epochs SET passed_at = NULL WHERE passed_at IS NOT NULL";

async fn pause_in(
    connection: &mut AsyncPgConnection,
    name: &str,
    paused: bool,
) -> QueryResult<Commanded> {
    limit_locks(connection, PATIENCE).await?;
    sql_query(HOLD_NUMBERING).execute(connection).await?;
    let Some(reaction) = find(connection, name).await? else {
        return Ok(Commanded::Unknown);
    };
    if let Some(reason) = reaction.pause_refusal(paused) {
        return Ok(Commanded::Refused(reason));
    }
    diesel::update(reactions::table.find(reaction.id))
        .set(reactions::paused.eq(paused))
        .execute(connection)
        .await?;
    let floor = floor(connection).await?;
    for lane in reaction.lanes {
        // As it is once no other process changes it.
        let of_lane = followers::table.find(&lane.name);
        let state: String = of_lane
            .select(followers::state)
            .for_no_key_update()
            .first(connection)
            .await?;
        let state = FollowerState::parse(&state);
        let revised = (
            followers::revision.eq(followers::revision + 1),
            followers::changed_at.eq(diesel::dsl::now),
        );
        match (paused, state) {
            (true, FollowerState::Running) => {
                let stopped = (followers::state.eq(FollowerState::Paused.as_str()), revised);
                diesel::update(of_lane)
                    .set(stopped)
                    .execute(connection)
                    .await?;
            }
            (false, FollowerState::Paused | FollowerState::Broken | FollowerState::Gapped) => {
                let complete_since = match state {
                    FollowerState::Gapped => floor,
                    _ => lane.complete_since,
                };
                let running = (
                    followers::state.eq(FollowerState::Running.as_str()),
                    followers::reason.eq(None::<String>),
                    followers::complete_since.eq(complete_since),
                    revised,
                );
                diesel::update(of_lane)
                    .set(running)
                    .execute(connection)
                    .await?;
                if state == FollowerState::Gapped {
                    sql_query(NOT_PASSED).execute(connection).await?;
                }
            }
            _ => {}
        }
    }
    notify(connection).await?;
    Ok(Commanded::Done)
}

/// A lane's step refers to the row while it is under way.
const LOCK_LANES: &str = "SELECT FROM followers WHERE name = ANY ($1) ORDER BY name FOR UPDATE";

const REMOVE_LANES: &str = "DELETE FROM followers WHERE name = ANY ($1)";

pub(super) async fn remove(
    connection: &mut AsyncPgConnection,
    name: &str,
) -> QueryResult<Commanded> {
    in_transaction(connection, async |connection| {
        remove_in(connection, name).await
    })
    .await
}

async fn remove_in(connection: &mut AsyncPgConnection, name: &str) -> QueryResult<Commanded> {
    limit_locks(connection, PATIENCE).await?;
    sql_query(HOLD_NUMBERING).execute(connection).await?;
    let Some(reaction) = find(connection, name).await? else {
        return Ok(Commanded::Unknown);
    };
    if let Some(reason) = reaction.removal_refusal() {
        return Ok(Commanded::Refused(reason));
    }
    let lanes: Vec<String> = reaction.lanes.into_iter().map(|lane| lane.name).collect();
    // The last step of a process that has lost its lease may be under way.
    sql_query(LOCK_LANES)
        .bind::<Array<Text>, _>(&lanes)
        .execute(connection)
        .await?;
    // A process that takes a lease meanwhile finds no lane, and claims nothing.
    reactions::table
        .find(reaction.id)
        .select(reactions::id)
        .for_update()
        .first::<i32>(connection)
        .await?;
    let end = end(connection).await?;
    removed_reactions::remember(connection, reaction.id, &lanes, end.0).await?;
    sql_query(REMOVE_LANES)
        .bind::<Array<Text>, _>(&lanes)
        .execute(connection)
        .await?;
    // The queue and the counts go with it, the outcomes later.
    diesel::delete(reactions::table.find(reaction.id))
        .execute(connection)
        .await?;
    notify(connection).await?;
    Ok(Commanded::Done)
}

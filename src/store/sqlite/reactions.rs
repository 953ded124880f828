//! Reactions; see [`ReactionStore`].

use super::SqliteStore;
use super::connection::SqliteFailure;
use super::follower_records::{floor, record, store_position, types_text};
use super::reaction_queue;
use super::schema::{
    follower_declarations as declarations, followers, reaction_marks as marks,
    reaction_positions as reached, reaction_queue as queue, reaction_runs as runs, reactions,
};
use super::{leases, read, reopened};
use crate::store::StoreError;
use crate::store::commit_log::Position;
use crate::store::followers::{
    FollowerKind, FollowerRecord, FollowerState, LaneSpec, OnError, Start,
};
use crate::store::reactions::{
    Claim, Claimed, FinishedClaims, QueueKey, ReactionDeclaration, ReactionPosition,
    ReactionRecord, ReactionStore, ReopenedKey, lane_name, parse_lane,
};
use crate::store::rows::TimeColumn;
use async_trait::async_trait;
use diesel::dsl::max;
use diesel::prelude::*;

pub(super) type ReactionRow = (i32, String, bool, TimeColumn);

/// The lanes of a reaction, also those of earlier declarations.
fn lanes(connection: &mut SqliteConnection, reaction: &str) -> QueryResult<Vec<FollowerRecord>> {
    let names: Vec<String> = followers::table
        .filter(followers::kind.eq(FollowerKind::Reaction.as_str()))
        .select(followers::name)
        .load(connection)?;
    let mut own: Vec<(u32, String)> = names
        .into_iter()
        .filter_map(|name| {
            let (of, number) = parse_lane(&name)?;
            (of == reaction)
                .then_some(number)
                .map(|number| (number, name.clone()))
        })
        .collect();
    own.sort();
    let found = own.iter().map(|(_, name)| record(connection, name));
    Ok(found
        .collect::<QueryResult<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

pub(super) fn with_lanes(
    connection: &mut SqliteConnection,
    (id, name, paused, declared_at): ReactionRow,
) -> QueryResult<ReactionRecord> {
    Ok(ReactionRecord {
        id,
        lanes: lanes(connection, &name)?,
        name,
        paused,
        declared_at: declared_at.0,
    })
}

fn declare(
    connection: &mut SqliteConnection,
    declaration: &ReactionDeclaration,
) -> Result<bool, SqliteFailure> {
    let now = leases::now(connection)?;
    let name = declaration.name.as_str();
    let inserted = diesel::insert_into(reactions::table)
        .values((reactions::name.eq(name), reactions::declared_at.eq(now)))
        .on_conflict_do_nothing()
        .execute(connection)?;
    let is_new = inserted == 1;
    let (id, paused): (i32, bool) = reactions::table
        .filter(reactions::name.eq(name))
        .select((reactions::id, reactions::paused))
        .first(connection)?;
    let types = types_text(&declaration.types);
    let spec = serde_json::to_string(&declaration.spec).unwrap_or_default();
    let known: Option<(String, Option<String>)> = declarations::table
        .filter(declarations::follower.eq(lane_name(name, 0)))
        .order(declarations::holds_from.desc())
        .select((declarations::types, declarations::spec))
        .first(connection)
        .optional()?;
    if known == Some((types.clone(), Some(spec.clone()))) {
        return Ok(false);
    }
    // The retention may have left an empty log, whose last id says nothing.
    let known_lanes = lanes(connection, name)?;
    let reached = known_lanes.iter().map(|lane| lane.position.0).max();
    let declared: Option<i64> = declarations::table
        .select(max(declarations::holds_from))
        .first(connection)?;
    let here = read::last_id(connection)?
        .max(reached.unwrap_or(0))
        .max(declared.unwrap_or(0));
    let (from, complete_since) = match declaration.start {
        Start::Beginning if is_new => (0, floor(connection)?),
        _ => (here, None),
    };
    if is_new {
        diesel::insert_into(marks::table)
            .values((marks::reaction.eq(id), marks::marked_to.eq(from)))
            .execute(connection)?;
    }
    let declared = |lane: &str, holds_from: i64| {
        (
            declarations::follower.eq(lane.to_owned()),
            declarations::holds_from.eq(holds_from),
            declarations::types.eq(types.clone()),
            declarations::spec.eq(Some(spec.clone())),
        )
    };
    // As it was declared last: a lane that is behind is under an earlier declaration.
    let was = known
        .and_then(|(_, spec)| serde_json::from_str::<LaneSpec>(&spec?).ok())
        .map_or(0, |spec| spec.lanes);
    let used = was.max(declaration.spec.lanes);
    for lane in known_lanes {
        let number = parse_lane(&lane.name).map_or(0, |(_, number)| number);
        if number >= used && lane.until == Position::MAX {
            // Of an earlier declaration, with nothing left to do.
            diesel::delete(followers::table.find(&lane.name)).execute(connection)?;
            continue;
        }
        diesel::replace_into(declarations::table)
            .values(declared(&lane.name, here))
            .execute(connection)?;
        diesel::update(followers::table.find(&lane.name))
            .set((
                followers::revision.eq(followers::revision + 1),
                followers::changed_at.eq(now),
            ))
            .execute(connection)?;
    }
    for number in 0..declaration.spec.lanes {
        let lane = lane_name(name, number);
        let state = if paused {
            FollowerState::Paused
        } else {
            FollowerState::Running
        };
        let inserted = diesel::insert_into(followers::table)
            .values((
                followers::name.eq(&lane),
                followers::kind.eq(FollowerKind::Reaction.as_str()),
                followers::state.eq(state.as_str()),
                followers::on_error.eq(OnError::Stop.as_str()),
                followers::complete_since.eq(complete_since.clone()),
                followers::declared_at.eq(now),
                followers::changed_at.eq(now),
            ))
            .on_conflict_do_nothing()
            .execute(connection)?;
        if inserted == 1 {
            diesel::insert_into(declarations::table)
                .values(declared(&lane, from))
                .execute(connection)?;
            store_position(connection, &lane, 0, Position(from), 0)?;
        }
    }
    Ok(true)
}

#[async_trait]
impl ReactionStore for SqliteStore {
    async fn declare_reaction(
        &self,
        declaration: &ReactionDeclaration,
    ) -> Result<bool, StoreError> {
        let declaration = declaration.clone();
        self.writer.ask(1, move |c| declare(c, &declaration)).await
    }

    async fn reaction(&self, name: &str) -> Result<Option<ReactionRecord>, StoreError> {
        let name = name.to_owned();
        self.readers
            .read(move |connection| {
                Ok(connection.transaction(|connection| {
                    let row: Option<ReactionRow> = reactions::table
                        .filter(reactions::name.eq(name))
                        .first(connection)
                        .optional()?;
                    row.map(|row| with_lanes(connection, row)).transpose()
                })?)
            })
            .await
    }

    async fn reactions(&self) -> Result<Vec<ReactionRecord>, StoreError> {
        self.readers
            .read(|connection| {
                Ok(connection.transaction(|connection| {
                    let rows: Vec<ReactionRow> =
                        reactions::table.order(reactions::name).load(connection)?;
                    let records = rows.into_iter().map(|row| with_lanes(connection, row));
                    records.collect::<QueryResult<Vec<_>>>()
                })?)
            })
            .await
    }

    /// Each insert reads the declarations itself.
    async fn refresh_awaited(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reaction_positions(&self) -> Result<Vec<ReactionPosition>, StoreError> {
        self.readers
            .read(|connection| {
                let rows: Vec<(i64, Option<i64>)> = reached::table
                    .select((reached::marked_to, reached::decided_to))
                    .load(connection)?;
                Ok(rows.into_iter().map(ReactionPosition::new).collect())
            })
            .await
    }

    async fn decided(
        &self,
        reaction: i32,
        after: Position,
        until: Position,
    ) -> Result<Vec<Position>, StoreError> {
        self.readers
            .read(move |connection| {
                let positions: Vec<i64> = runs::table
                    .filter(runs::reaction.eq(reaction))
                    .filter(runs::position.gt(after.0))
                    .filter(runs::position.le(until.0))
                    .select(runs::position)
                    .load(connection)?;
                Ok(positions.into_iter().map(Position).collect())
            })
            .await
    }

    async fn queued_keys(
        &self,
        reaction: i32,
        kind: QueueKey,
        keys: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let keys = keys.to_vec();
        self.readers
            .read(move |connection| {
                let own = queue::table.filter(queue::reaction.eq(reaction));
                let found: Vec<Option<String>> = match kind {
                    QueueKey::Order => own
                        .filter(queue::order_key.eq_any(keys))
                        .select(queue::order_key)
                        .distinct()
                        .load(connection)?,
                    QueueKey::Unique => own
                        .filter(queue::unique_key.eq_any(keys))
                        .select(queue::unique_key)
                        .distinct()
                        .load(connection)?,
                };
                Ok(found.into_iter().flatten().collect())
            })
            .await
    }

    async fn reopened_keys(
        &self,
        reaction: i32,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ReopenedKey>, StoreError> {
        self.readers
            .read(move |connection| Ok(reopened::keys(connection, reaction, after, limit)?))
            .await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let claim = claim.clone();
        self.writer
            .ask(claim.limit, move |c| Ok(reaction_queue::claim(c, &claim)?))
            .await
    }

    async fn finish(&self, finished: FinishedClaims) -> Result<u64, StoreError> {
        self.writer
            .ask(finished.claims.len(), move |c| {
                let FinishedClaims {
                    reaction, worker, ..
                } = &finished;
                Ok(reaction_queue::finish(
                    c,
                    *reaction,
                    worker,
                    &finished.claims,
                )?)
            })
            .await
    }
}

//! What the file has of followers: declarations and positions.

use super::connection::SqliteFailure;
use super::leases;
use super::read;
use super::schema::{
    follower_declarations as declarations, follower_positions as positions,
    follower_replays as replays, followers, log_floor,
};
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::followers::{
    Declaration, FollowerKind, FollowerRecord, FollowerState, OnError, Start, lease_name,
};
use crate::store::rows::TimeColumn;
use chrono::NaiveDate;
use diesel::dsl::max;
use diesel::prelude::*;

/// Positions that are kept before the newest.
const KEPT: i64 = 64;

#[derive(Queryable)]
struct FollowerRow {
    name: String,
    kind: String,
    state: String,
    reason: Option<String>,
    on_error: String,
    revision: i64,
    rebuild: bool,
    complete_since: Option<String>,
}

pub(super) fn record(
    connection: &mut SqliteConnection,
    name: &str,
) -> QueryResult<Option<FollowerRecord>> {
    let row: Option<FollowerRow> = followers::table
        .find(name)
        .select((
            followers::name,
            followers::kind,
            followers::state,
            followers::reason,
            followers::on_error,
            followers::revision,
            followers::rebuild,
            followers::complete_since,
        ))
        .first(connection)
        .optional()?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (n, position, moved_at, begun): (i64, i64, TimeColumn, i32) = positions::table
        .filter(positions::follower.eq(name))
        .order(positions::n.desc())
        .select((
            positions::n,
            positions::position,
            positions::stored_at,
            positions::begun,
        ))
        .first(connection)?;
    let (types, spec): (String, Option<String>) = declarations::table
        .filter(declarations::follower.eq(name))
        .filter(declarations::holds_from.le(position))
        .order(declarations::holds_from.desc())
        .select((declarations::types, declarations::spec))
        .first(connection)?;
    let until: Option<i64> = declarations::table
        .filter(declarations::follower.eq(name))
        .filter(declarations::holds_from.gt(position))
        .order(declarations::holds_from)
        .select(declarations::holds_from)
        .first(connection)
        .optional()?;
    let waiting: i64 = replays::table
        .filter(replays::follower.eq(name))
        .count()
        .get_result(connection)?;
    let run_by = leases::holder(connection, &lease_name(name))?;
    Ok(Some(FollowerRecord {
        name: row.name,
        kind: FollowerKind::parse(&row.kind),
        state: FollowerState::parse(&row.state),
        reason: row.reason,
        on_error: OnError::parse(&row.on_error),
        revision: row.revision,
        rebuild: row.rebuild,
        complete_since: day(row.complete_since),
        n,
        position: Position(position),
        moved_at: moved_at.0,
        types: TypePatterns::new(read_types(&types)?),
        until: until.map_or(Position::MAX, Position),
        replays: waiting.unsigned_abs(),
        run_by,
        spec: spec.and_then(|spec| serde_json::from_str(&spec).ok()),
        begun: begun.unsigned_abs(),
    }))
}

pub(super) fn day(text: Option<String>) -> Option<NaiveDate> {
    text.and_then(|text| text.parse().ok())
}

pub(super) fn read_types(text: &str) -> QueryResult<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
}

pub(super) fn types_text(types: &TypePatterns) -> String {
    serde_json::Value::from(types.to_vec()).to_string()
}

pub(super) fn floor(connection: &mut SqliteConnection) -> QueryResult<Option<String>> {
    log_floor::table
        .select(log_floor::complete_since)
        .first(connection)
}

pub(super) fn declare(
    connection: &mut SqliteConnection,
    declaration: &Declaration,
) -> Result<bool, SqliteFailure> {
    let now = leases::now(connection)?;
    let name = declaration.name.as_str();
    // The retention may have left an empty log, whose last id says nothing.
    let known: Option<i64> = positions::table
        .filter(positions::follower.eq(name))
        .select(max(positions::position))
        .first(connection)?;
    let declared_at: Option<i64> = declarations::table
        .filter(declarations::follower.eq(name))
        .select(max(declarations::holds_from))
        .first(connection)?;
    let here = read::last_id(connection)?
        .max(known.unwrap_or(0))
        .max(declared_at.unwrap_or(0));
    let declared = |holds_from: i64| {
        (
            declarations::follower.eq(name),
            declarations::holds_from.eq(holds_from),
            declarations::types.eq(types_text(&declaration.types)),
        )
    };
    let Some(known) = newest(connection, name)? else {
        let (from, complete_since) = match declaration.start {
            Start::Now => (here, None),
            Start::Beginning => (0, floor(connection)?),
        };
        diesel::insert_into(followers::table)
            .values((
                followers::name.eq(name),
                followers::kind.eq(declaration.kind.as_str()),
                followers::on_error.eq(declaration.on_error.as_str()),
                followers::complete_since.eq(complete_since),
                followers::declared_at.eq(now),
                followers::changed_at.eq(now),
            ))
            .execute(connection)?;
        diesel::insert_into(declarations::table)
            .values(declared(from))
            .execute(connection)?;
        store_position(connection, name, 0, Position(from), 0)?;
        return Ok(true);
    };
    let wanted = (
        declaration.kind.as_str().to_owned(),
        declaration.on_error.as_str().to_owned(),
        types_text(&declaration.types),
    );
    if known == wanted {
        return Ok(false);
    }
    if known.2 != wanted.2 {
        diesel::replace_into(declarations::table)
            .values(declared(here))
            .execute(connection)?;
    }
    diesel::update(followers::table.find(name))
        .set((
            followers::kind.eq(wanted.0),
            followers::on_error.eq(wanted.1),
            followers::revision.eq(followers::revision + 1),
            followers::changed_at.eq(now),
        ))
        .execute(connection)?;
    Ok(true)
}

/// The newest declaration: kind, `on_error` and types.
fn newest(
    connection: &mut SqliteConnection,
    name: &str,
) -> QueryResult<Option<(String, String, String)>> {
    let follower: Option<(String, String)> = followers::table
        .find(name)
        .select((followers::kind, followers::on_error))
        .first(connection)
        .optional()?;
    let Some((kind, on_error)) = follower else {
        return Ok(None);
    };
    let types = declarations::table
        .filter(declarations::follower.eq(name))
        .order(declarations::holds_from.desc())
        .select(declarations::types)
        .first(connection)?;
    Ok(Some((kind, on_error, types)))
}

pub(super) fn store_position(
    connection: &mut SqliteConnection,
    follower: &str,
    n: i64,
    to: Position,
    begun: u32,
) -> QueryResult<()> {
    let now = leases::now(connection)?;
    diesel::insert_into(positions::table)
        .values((
            positions::follower.eq(follower),
            positions::n.eq(n),
            positions::position.eq(to.0),
            positions::stored_at.eq(now),
            positions::begun.eq(i32::try_from(begun).unwrap_or(i32::MAX)),
        ))
        .execute(connection)?;
    if n % KEPT == 0 {
        let old = positions::table
            .filter(positions::follower.eq(follower))
            .filter(positions::n.lt(n.saturating_sub(KEPT)));
        diesel::delete(old).execute(connection)?;
    }
    Ok(())
}

/// The position of the follower that is furthest behind, without the gapped ones and the marks `processed`, which need
/// no event that is gone.
pub(super) fn least_position(connection: &mut SqliteConnection) -> QueryResult<Option<Position>> {
    let of_followers = current_positions(connection)?;
    Ok(of_followers.into_iter().map(|(_, position)| position).min())
}

/// The followers that have not read what was deleted up to here are gapped.
pub(super) fn gap(connection: &mut SqliteConnection, deleted: Position) -> QueryResult<()> {
    let now = leases::now(connection)?;
    for (name, position) in current_positions(connection)? {
        if position < deleted {
            diesel::update(followers::table.find(name))
                .set((
                    followers::state.eq(FollowerState::Gapped.as_str()),
                    followers::reason.eq("the retention deleted events that were not read"),
                    followers::revision.eq(followers::revision + 1),
                    followers::changed_at.eq(now),
                ))
                .execute(connection)?;
        }
    }
    Ok(())
}

fn current_positions(connection: &mut SqliteConnection) -> QueryResult<Vec<(String, Position)>> {
    let moving: Vec<(String, bool)> = followers::table
        .filter(followers::state.ne(FollowerState::Gapped.as_str()))
        .filter(followers::name.ne("reactions:processed"))
        .select((followers::name, followers::rebuild))
        .load(connection)?;
    moving
        .into_iter()
        .map(|(name, rebuild)| {
            if rebuild {
                // It is to read everything again.
                return Ok((name, Position::START));
            }
            let position = positions::table
                .filter(positions::follower.eq(&name))
                .order(positions::n.desc())
                .select(positions::position)
                .first(connection)?;
            Ok((name, Position(position)))
        })
        .collect()
}

/// Says that the log is complete from this day on only.
pub(super) fn raise_floor(connection: &mut SqliteConnection, since: NaiveDate) -> QueryResult<()> {
    if day(floor(connection)?).is_none_or(|known| known < since) {
        diesel::update(log_floor::table)
            .set(log_floor::complete_since.eq(Some(since.to_string())))
            .execute(connection)?;
    }
    Ok(())
}

//! Where events lie in the log, and what held of a reaction there.

use super::follower_records::read_types;
use super::read;
use super::runs::VARIABLES;
use super::schema::follower_declarations as declarations;
use super::schema::user_interactions::dsl;
use crate::event::StoredEvent;
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::queries;
use crate::store::reactions::lane_name;
use crate::store::rows::{EventRow, IdColumn, TimeColumn};
use crate::store::runs::Held;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

pub(super) fn of_event(
    connection: &mut SqliteConnection,
    event_id: Uuid,
) -> QueryResult<Option<Position>> {
    let id: Option<i64> = dsl::user_interactions
        .filter(dsl::event_id.eq(IdColumn(event_id)))
        .select(dsl::id)
        .first(connection)
        .optional()?;
    Ok(id.map(Position))
}

/// The last row that was received before a time: half of what is left at each step. Rows are received in the order of
/// `id`, but for what lies in one batch, and for changes of the clock. `low` was received before it, `high` was not,
/// and rows between may be missing.
pub(super) fn at(connection: &mut SqliteConnection, time: DateTime<Utc>) -> QueryResult<Position> {
    let time = TimeColumn::bound(time).0;
    let (mut low, mut high) = (0_i64, read::last_id(connection)?.saturating_add(1));
    while high.saturating_sub(low) > 1 {
        let middle = low.saturating_add(high) / 2;
        let found: Option<(i64, TimeColumn)> = dsl::user_interactions
            .select((dsl::id, dsl::received_at))
            .filter(dsl::id.ge(middle))
            .order(dsl::id)
            .first(connection)
            .optional()?;
        match found {
            Some((id, at)) if at.0 < time && id < high => low = id,
            _ => high = middle,
        }
    }
    Ok(Position(low))
}

/// All lanes have the same declarations, and the first one is never gone.
pub(super) fn held(
    connection: &mut SqliteConnection,
    reaction: &str,
    position: Position,
) -> QueryResult<Option<Held>> {
    let row: Option<(i64, String, Option<String>)> = declarations::table
        .filter(declarations::follower.eq(lane_name(reaction, 0)))
        .filter(declarations::holds_from.lt(position.0))
        .order(declarations::holds_from.desc())
        .select((
            declarations::holds_from,
            declarations::types,
            declarations::spec,
        ))
        .first(connection)
        .optional()?;
    let Some((from, types, Some(spec))) = row else {
        return Ok(None);
    };
    let spec = serde_json::from_str(&spec)
        .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))?;
    Ok(Some(Held {
        from: Position(from),
        types: TypePatterns::new(read_types(&types)?),
        spec,
    }))
}

pub(super) fn events(
    connection: &mut SqliteConnection,
    ids: &[Uuid],
) -> QueryResult<Vec<StoredEvent>> {
    let mut found = Vec::new();
    for ids in ids.chunks(VARIABLES) {
        let rows: Vec<EventRow> = dsl::user_interactions
            .select(queries::event_columns!())
            .filter(dsl::event_id.eq_any(ids.iter().copied().map(IdColumn)))
            .load(connection)?;
        found.extend(rows.into_iter().map(StoredEvent::from));
    }
    Ok(found)
}

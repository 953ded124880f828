//! Queries. `id` is the key by which SQLite keeps the table, so its order costs nothing.

use super::schema::user_interactions::dsl;
use crate::event::StoredEvent;
use crate::store::rows::{EventRow, IdColumn, page};
use crate::store::{Count, CountBy, EventFilter, Page, queries};
use diesel::dsl::max;
use diesel::prelude::*;
use uuid::Uuid;

/// The event of this id.
pub(super) fn get(
    connection: &mut SqliteConnection,
    event_id: Uuid,
) -> QueryResult<Option<StoredEvent>> {
    let row = dsl::user_interactions
        .select(queries::event_columns!())
        .filter(dsl::event_id.eq(IdColumn(event_id)))
        .first::<EventRow>(connection)
        .optional()?;
    Ok(row.map(Into::into))
}

/// The highest `id` there is.
pub(super) fn last_id(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let last: Option<i64> = dsl::user_interactions
        .select(max(dsl::id))
        .get_result(connection)?;
    Ok(last.unwrap_or(0))
}

/// Events by descending `id`.
pub(super) fn list(
    connection: &mut SqliteConnection,
    filter: &EventFilter,
    before: Option<i64>,
    limit: usize,
) -> QueryResult<Page> {
    let query = dsl::user_interactions
        .select(queries::event_columns!())
        .into_boxed();
    let rows = queries::filter_events!(query, filter)
        .filter(dsl::id.lt(before.unwrap_or(i64::MAX)))
        .order(dsl::id.desc())
        .limit(queries::as_limit(limit))
        .load(connection)?;
    Ok(page(rows, limit))
}

/// See [`EventStore::count_by`](crate::store::EventStore::count_by).
pub(super) fn count_by(
    connection: &mut SqliteConnection,
    field: CountBy,
    filter: &EventFilter,
) -> QueryResult<Vec<Count>> {
    let counts = queries::count_events!(field, filter).load(connection)?;
    Ok(counts.into_iter().map(Count::of).collect())
}

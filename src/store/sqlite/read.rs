//! Queries. `id` is the key by which SQLite keeps the table, so its order costs nothing.

use super::rows::{Row, Select, selection};
use super::schema::user_interactions::dsl;
use crate::event::StoredEvent;
use crate::store::{Count, CountBy, EventFilter, Page, TailPosition, times};
use diesel::dsl::{count_star, max};
use diesel::prelude::*;
use uuid::Uuid;

/// Most ids in one query, well below SQLite's limit on parameters.
const IDS: usize = 1_000;

/// Most keys that a count gives back.
const MAX_KEYS: i64 = 10_000;

fn all() -> Select<'static> {
    dsl::user_interactions.select(selection()).into_boxed()
}

/// Adds the conditions of a filter to a query; a macro because a grouped query has another type.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        let (mut query, filter): (_, &EventFilter) = ($query, $filter);
        if let Some(user) = &filter.user_id {
            query = query.filter(dsl::user_id.eq(user.as_str()));
        }
        if let Some(event_type) = &filter.event_type {
            query = query.filter(dsl::event_type.eq(event_type.as_str()));
        }
        if let Some(session) = &filter.session_id {
            query = query.filter(dsl::session_id.eq(session.as_str()));
        }
        if let Some(from) = filter.from {
            query = query.filter(dsl::timestamp.ge(times::bound(from).timestamp_micros()));
        }
        if let Some(to) = filter.to {
            query = query.filter(dsl::timestamp.lt(times::bound(to).timestamp_micros()));
        }
        query
    }};
}

/// The event of this id.
pub(super) fn get(
    connection: &mut SqliteConnection,
    event_id: Uuid,
) -> QueryResult<Option<StoredEvent>> {
    let row = all()
        .filter(dsl::event_id.eq(event_id.as_bytes().as_slice()))
        .first::<Row>(connection)
        .optional()?;
    Ok(row.map(Into::into))
}

/// The events of these ids, as far as they are there.
pub(super) fn by_ids(
    connection: &mut SqliteConnection,
    event_ids: &[Uuid],
) -> QueryResult<Vec<StoredEvent>> {
    let mut events = Vec::with_capacity(event_ids.len());
    for chunk in event_ids.chunks(IDS) {
        let ids: Vec<&[u8]> = chunk.iter().map(|id| id.as_bytes().as_slice()).collect();
        let query = all().filter(dsl::event_id.eq_any(ids));
        events.extend(query.load::<Row>(connection)?.into_iter().map(Into::into));
    }
    Ok(events)
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
    let mut query = filtered!(all(), filter);
    if let Some(before) = before {
        query = query.filter(dsl::id.lt(before));
    }
    let query = query.order(dsl::id.desc()).limit(as_limit(limit));
    let events: Vec<StoredEvent> = query
        .load::<Row>(connection)?
        .into_iter()
        .map(Into::into)
        .collect();
    let full = limit > 0 && events.len() >= limit;
    let next = events.last().map(|event| event.id).filter(|_| full);
    Ok(Page { events, next })
}

/// The position behind everything there is. One writer commits in the order of `id`, so the
/// highest one is exact.
pub(super) fn tail_from_now(connection: &mut SqliteConnection) -> QueryResult<TailPosition> {
    let id = last_id(connection)?;
    Ok(TailPosition { transaction: 0, id })
}

/// Events behind `after`. The position moves on over what does not pass the filter.
pub(super) fn tail(
    connection: &mut SqliteConnection,
    filter: &EventFilter,
    after: TailPosition,
    limit: usize,
) -> QueryResult<(Vec<StoredEvent>, TailPosition)> {
    // Before the query: what is committed in between is for the next call.
    let last = last_id(connection)?.max(after.id);
    let query = filtered!(all(), filter)
        .filter(dsl::id.gt(after.id))
        .filter(dsl::id.le(last))
        .order(dsl::id.asc())
        .limit(as_limit(limit));
    let events: Vec<StoredEvent> = query
        .load::<Row>(connection)?
        .into_iter()
        .map(Into::into)
        .collect();
    let id = match events.last() {
        Some(event) if events.len() >= limit => event.id,
        _ if limit == 0 => after.id,
        _ => last,
    };
    Ok((events, TailPosition { transaction: 0, id }))
}

/// Number of events by the values of a field, largest first. Reads everything that passes the
/// filter.
pub(super) fn count_by(
    connection: &mut SqliteConnection,
    field: CountBy,
    filter: &EventFilter,
) -> QueryResult<Vec<Count>> {
    macro_rules! counted {
        ($column:expr) => {{
            let query = dsl::user_interactions
                .group_by($column)
                .select(($column.nullable(), count_star()))
                .into_boxed();
            filtered!(query, filter)
                .order(count_star().desc())
                .limit(MAX_KEYS)
                .load::<(Option<String>, i64)>(connection)?
        }};
    }
    let counts = match field {
        CountBy::Type => counted!(dsl::event_type),
        CountBy::Source => counted!(dsl::source),
        CountBy::User => counted!(dsl::user_id),
    };
    let count = |(key, events): (_, i64)| Count {
        key,
        events: events.unsigned_abs(),
    };
    Ok(counts.into_iter().map(count).collect())
}

fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

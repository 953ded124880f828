//! Queries, through diesel.

use super::rows::{Row, Select, selection};
use super::schema::user_interactions::dsl;
use crate::event::{StoredEvent, id};
use crate::store::{Count, CountBy, EventFilter, Page, TailPosition, times};
use chrono::NaiveDate;
use diesel::dsl::{count_star, sql};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;
use uuid::Uuid;

type QueryResult<T> = Result<T, diesel::result::Error>;

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
            query = query.filter(dsl::timestamp.ge(times::bound(from)));
        }
        if let Some(to) = filter.to {
            query = query.filter(dsl::timestamp.lt(times::bound(to)));
        }
        query
    }};
}

/// The event of this id. Looks into one partition.
pub(super) async fn get(
    connection: &mut AsyncPgConnection,
    event_id: Uuid,
) -> QueryResult<Option<StoredEvent>> {
    let row = all()
        .filter(dsl::event_id.eq(event_id))
        .filter(dsl::bucket.eq(id::bucket(&event_id)))
        .first::<Row>(connection)
        .await
        .optional()?;
    Ok(row.map(Into::into))
}

/// The events of these ids, as far as they are there.
pub(super) async fn by_ids(
    connection: &mut AsyncPgConnection,
    event_ids: &[Uuid],
) -> QueryResult<Vec<StoredEvent>> {
    let buckets: BTreeSet<NaiveDate> = event_ids.iter().map(id::bucket).collect();
    let rows = all()
        .filter(dsl::event_id.eq_any(event_ids))
        .filter(dsl::bucket.eq_any(buckets.into_iter().collect::<Vec<_>>()))
        .load::<Row>(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Events by descending `id`.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &EventFilter,
    before: Option<i64>,
    limit: usize,
) -> QueryResult<Page> {
    let mut query = filtered!(all(), filter);
    if let Some(before) = before {
        query = query.filter(dsl::id.lt(before));
    }
    let query = if filter.user_id.is_some() || filter.session_id.is_some() {
        // Not the bare column: the planner would walk the whole log by `id` in the hope of meeting
        // this user soon, instead of sorting the few rows that the index on the user gives.
        query.order((dsl::id + 0_i64).desc())
    } else {
        query.order(dsl::id.desc())
    };
    let events: Vec<StoredEvent> = query
        .limit(as_limit(limit))
        .load::<Row>(connection)
        .await?
        .into_iter()
        .map(Into::into)
        .collect();
    let full = limit > 0 && events.len() >= limit;
    let next = events.last().map(|event| event.id).filter(|_| full);
    Ok(Page { events, next })
}

/// The oldest transaction still open: all before it are over, and a later snapshot sees what they
/// wrote. Transactions in other databases of the server hold it back too.
async fn watermark(connection: &mut AsyncPgConnection) -> QueryResult<i64> {
    let oldest = sql::<BigInt>("pg_snapshot_xmin(pg_current_snapshot())::text::bigint");
    diesel::select(oldest).get_result(connection).await
}

/// See [`EventStore::tail_from_now`](crate::store::EventStore::tail_from_now). Events that were
/// committed shortly before, while an older transaction was still open, come too: missing one
/// would be worse.
pub(super) async fn tail_from_now(connection: &mut AsyncPgConnection) -> QueryResult<TailPosition> {
    Ok(all_before(watermark(connection).await?))
}

/// The position behind every transaction before this one.
fn all_before(transaction: i64) -> TailPosition {
    TailPosition {
        transaction: transaction.saturating_sub(1),
        id: i64::MAX,
    }
}

/// See [`EventStore::tail`](crate::store::EventStore::tail). The position moves on over what does
/// not pass the filter.
pub(super) async fn tail(
    connection: &mut AsyncPgConnection,
    filter: &EventFilter,
    after: TailPosition,
    limit: usize,
) -> QueryResult<(Vec<StoredEvent>, TailPosition)> {
    let watermark = watermark(connection).await?;
    if all_before(watermark) == after {
        // Nothing was committed since: what most polls find, and cheap even with many partitions.
        return Ok((Vec::new(), after));
    }
    let behind = dsl::transaction
        .gt(after.transaction)
        .or(dsl::id.gt(after.id));
    let rows = filtered!(all(), filter)
        // Follows from the next condition; alone it is a range of the index.
        .filter(dsl::transaction.ge(after.transaction))
        .filter(behind)
        .filter(dsl::transaction.lt(watermark))
        .order((dsl::transaction.asc(), dsl::id.asc()))
        .limit(as_limit(limit))
        .load::<Row>(connection)
        .await?;
    let position = match rows.last() {
        Some(last) if rows.len() >= limit => last.position(),
        _ if limit > 0 && watermark > after.transaction => all_before(watermark),
        _ => after,
    };
    Ok((rows.into_iter().map(Into::into).collect(), position))
}

/// Number of events by the values of a field, largest first. Reads everything that passes the
/// filter.
pub(super) async fn count_by(
    connection: &mut AsyncPgConnection,
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
                .load::<(Option<String>, i64)>(connection)
                .await?
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

/// Whether the server takes writes, as far as that shows without one: a replica and a database
/// set read-only answer too.
pub(super) async fn is_writable(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    let writable = sql::<Bool>(
        "NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean",
    );
    diesel::select(writable).get_result(connection).await
}

fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

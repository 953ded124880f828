//! Queries, through diesel.

use super::schema::user_interactions::dsl;
use crate::event::{Event, StoredEvent, id};
use crate::store::rows::{EventRow, page};
use crate::store::{Count, CountBy, EventFilter, Page, queries, times};
use chrono::{DateTime, NaiveDate, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{self, Array, Bool, Date, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// The event of this id. Looks into one partition.
pub(super) async fn get(
    connection: &mut AsyncPgConnection,
    event_id: Uuid,
) -> QueryResult<Option<StoredEvent>> {
    let row = dsl::user_interactions
        .select(queries::event_columns!())
        .filter(dsl::event_id.eq(event_id))
        .filter(dsl::bucket.eq(id::bucket(&event_id)))
        .first::<EventRow>(connection)
        .await
        .optional()?;
    Ok(row.map(Into::into))
}

/// Of events with their places in a batch, those that have other content than the one the log has
/// under their id; see [`conflicts`](crate::store::content::conflicts) for what counts. PostgreSQL
/// compares: of the stored payloads, which may be far larger than the batch, none travels. Each row
/// of the batch looks into one partition, and no other is opened.
const CONFLICTS: &str = "\
    SELECT place \
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) \
         AS sent (place, event_id, bucket, \"timestamp\", user_id, event_type, session_id, event_data) \
    WHERE (SELECT sent.\"timestamp\" <> stored.\"timestamp\" \
                  OR sent.user_id IS DISTINCT FROM stored.user_id \
                  OR sent.event_type <> stored.event_type \
                  OR sent.session_id IS DISTINCT FROM stored.session_id \
                  OR sent.event_data::jsonb <> stored.event_data \
           FROM user_interactions AS stored \
           WHERE stored.event_id = sent.event_id AND stored.bucket = sent.bucket \
             AND stored.bucket = ANY ($3))";

#[derive(QueryableByName)]
struct Conflict {
    #[diesel(sql_type = Integer)]
    place: i32,
}

/// The places of those events that conflict with what the log has.
pub(super) async fn conflicts(
    connection: &mut AsyncPgConnection,
    events: &[(i32, &Event)],
) -> QueryResult<Vec<i32>> {
    let found = diesel::sql_query(CONFLICTS)
        .bind::<Array<Integer>, _>(column(events, |(place, _)| *place))
        .bind::<Array<sql_types::Uuid>, _>(column(events, |(_, event)| event.event_id))
        .bind::<Array<Date>, _>(column::<NaiveDate>(events, |(_, event)| {
            id::bucket(&event.event_id)
        }))
        .bind::<Array<Nullable<Timestamptz>>, _>(column::<Option<DateTime<Utc>>>(
            events,
            |(_, event)| event.timestamp.map(times::floor),
        ))
        .bind::<Array<Nullable<Text>>, _>(column(events, |(_, event)| event.user_id.as_deref()))
        .bind::<Array<Text>, _>(column(events, |(_, event)| event.event_type.as_str()))
        .bind::<Array<Nullable<Text>>, _>(column(events, |(_, event)| event.session_id.as_deref()))
        .bind::<Array<Text>, _>(column(events, |(_, event)| event.event_data.get()))
        .load::<Conflict>(connection)
        .await?;
    Ok(found.into_iter().map(|conflict| conflict.place).collect())
}

fn column<'a, T>(
    events: &'a [(i32, &'a Event)],
    field: impl Fn(&'a (i32, &'a Event)) -> T,
) -> Vec<T> {
    events.iter().map(field).collect()
}

/// Events by descending `id`.
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &EventFilter,
    before: Option<i64>,
    limit: usize,
) -> QueryResult<Page> {
    let query = dsl::user_interactions
        .select(queries::event_columns!())
        .into_boxed();
    let mut query = queries::filter_events!(query, filter);
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
    let rows = query
        .limit(queries::as_limit(limit))
        .load(connection)
        .await?;
    Ok(page(rows, limit))
}

/// See [`EventStore::count_by`](crate::store::EventStore::count_by).
pub(super) async fn count_by(
    connection: &mut AsyncPgConnection,
    field: CountBy,
    filter: &EventFilter,
) -> QueryResult<Vec<Count>> {
    let counts = queries::count_events!(field, filter)
        .load(connection)
        .await?;
    Ok(counts.into_iter().map(Count::of).collect())
}

/// Whether the server takes writes, as far as that shows without one: a replica and a database
/// set read-only answer too.
pub(super) async fn is_writable(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    let writable = sql::<Bool>(
        "NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean",
    );
    diesel::select(writable).get_result(connection).await
}

//! Queries on the dead letters.

use super::rows::{Id, Micros, Payload};
use super::schema::dead_letters::dsl;
use crate::store::dead_letters::{
    DeadLetter, Failure, LetterFilter, LetterOrder, LetterPosition, LetterState, LetterSummary,
};
use crate::store::times;
use diesel::SqliteConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use uuid::Uuid;

type QueryResult<T> = Result<T, diesel::result::Error>;

/// Adds the conditions of a filter to a boxed query, whatever it selects.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        let (mut query, filter): (_, &LetterFilter) = ($query, $filter);
        if let Some(ids) = &filter.ids {
            query = query.filter(
                dsl::id.eq_any(
                    ids.iter()
                        .map(|id| id.as_bytes().to_vec())
                        .collect::<Vec<_>>(),
                ),
            );
        }
        if let Some(cause) = &filter.cause {
            query = query.filter(dsl::cause.eq(cause.as_str()));
        }
        if let Some(event_type) = &filter.event_type {
            query = query.filter(dsl::event_type.eq(event_type.as_str()));
        }
        if let Some(from) = filter.from {
            query = query.filter(dsl::failed_at.ge(times::bound(from).timestamp_micros()));
        }
        if let Some(to) = filter.to {
            query = query.filter(dsl::failed_at.lt(times::bound(to).timestamp_micros()));
        }
        if let Some(state) = filter.state {
            query = query.filter(dsl::state.eq(state.as_str()));
        }
        query
    }};
}

#[derive(diesel::Queryable)]
struct SummaryRow {
    id: Id,
    state: String,
    created_at: Micros,
    failed_at: Micros,
    replayed_at: Option<Micros>,
    replays: i32,
    attempts: i32,
    cause: String,
    error: String,
    sqlstate: Option<String>,
    origin: String,
    event_id: Option<Id>,
    event_type: Option<String>,
    body_bytes: i64,
}

impl From<SummaryRow> for LetterSummary {
    fn from(row: SummaryRow) -> Self {
        Self {
            id: row.id.0,
            event_id: row.event_id.map(|id| id.0),
            event_type: row.event_type,
            failure: Failure {
                at: row.failed_at.0,
                cause: row.cause,
                error: row.error,
                sqlstate: row.sqlstate,
                attempts: u32::try_from(row.attempts).unwrap_or(0),
            },
            origin: row.origin,
            created_at: row.created_at.0,
            state: LetterState::parse(&row.state).unwrap_or(LetterState::Dead),
            replayed_at: row.replayed_at.map(|at| at.0),
            replays: u32::try_from(row.replays).unwrap_or(0),
            body_bytes: row.body_bytes.unsigned_abs(),
        }
    }
}

#[derive(diesel::Queryable)]
struct RestRow {
    frame: bool,
    content_type: Option<String>,
    message_id: Option<String>,
    body: Vec<u8>,
    headers: Payload,
    history: Payload,
}

macro_rules! summary {
    () => {
        (
            dsl::id,
            dsl::state,
            dsl::created_at,
            dsl::failed_at,
            dsl::replayed_at,
            dsl::replays,
            dsl::attempts,
            dsl::cause,
            dsl::error,
            dsl::sqlstate,
            dsl::origin,
            dsl::event_id,
            dsl::event_type,
            sql::<BigInt>("length(body)"),
        )
    };
}

/// The letter of this id.
pub(super) fn get(connection: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<DeadLetter>> {
    let rest = (
        dsl::frame,
        dsl::content_type,
        dsl::message_id,
        dsl::body,
        dsl::headers,
        dsl::history,
    );
    let row = dsl::dead_letters
        .filter(dsl::id.eq(id.as_bytes().to_vec()))
        .select((summary!(), rest))
        .first::<(SummaryRow, RestRow)>(connection)
        .optional()?;
    row.map(|(summary, rest)| {
        let summary = LetterSummary::from(summary);
        Ok(DeadLetter {
            id: summary.id,
            event_id: summary.event_id,
            event_type: summary.event_type,
            failure: summary.failure,
            origin: summary.origin,
            content_type: rest.content_type,
            message_id: rest.message_id,
            frame: rest.frame,
            body: rest.body,
            headers: rest.headers.parse()?,
            created_at: summary.created_at,
            history: rest.history.parse()?,
            state: summary.state,
            replayed_at: summary.replayed_at,
            replays: summary.replays,
        })
    })
    .transpose()
}

/// See [`DeadLetterStore::list_letters`](crate::store::DeadLetterStore::list_letters).
pub(super) fn list(
    connection: &mut SqliteConnection,
    filter: &LetterFilter,
    order: LetterOrder,
    after: Option<LetterPosition>,
    limit: usize,
) -> QueryResult<Vec<LetterSummary>> {
    let query = dsl::dead_letters.select(summary!()).into_boxed();
    let mut query = filtered!(query, filter).limit(i64::try_from(limit).unwrap_or(i64::MAX));
    // The first condition follows from the second; alone it is a range of the index.
    query = match (order, after) {
        (LetterOrder::Newest, Some(LetterPosition { created_at, id })) => query
            .filter(dsl::created_at.le(created_at.timestamp_micros()))
            .filter(
                dsl::created_at
                    .lt(created_at.timestamp_micros())
                    .or(dsl::id.lt(id.as_bytes().to_vec())),
            ),
        (LetterOrder::Oldest, Some(LetterPosition { created_at, id })) => query
            .filter(dsl::created_at.ge(created_at.timestamp_micros()))
            .filter(
                dsl::created_at
                    .gt(created_at.timestamp_micros())
                    .or(dsl::id.gt(id.as_bytes().to_vec())),
            ),
        (_, None) => query,
    };
    query = match order {
        LetterOrder::Newest => query.order((dsl::created_at.desc(), dsl::id.desc())),
        LetterOrder::Oldest => query.order((dsl::created_at.asc(), dsl::id.asc())),
    };
    let rows = query.load::<SummaryRow>(connection)?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How many pass the filter.
pub(super) fn count(connection: &mut SqliteConnection, filter: &LetterFilter) -> QueryResult<u64> {
    let query = dsl::dead_letters
        .select(diesel::dsl::count_star())
        .into_boxed();
    let count: i64 = filtered!(query, filter).get_result(connection)?;
    Ok(count.unsigned_abs())
}

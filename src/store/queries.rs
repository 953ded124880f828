//! The queries that both databases answer, written once.
//!
//! They are macros because diesel gives the tables of each database types of their own. Where one is
//! used, `dsl` is the module of the table's columns, and diesel's prelude is in scope.

/// Most keys that a count gives back.
pub(super) const MAX_KEYS: i64 = 10_000;

/// A limit as diesel takes it.
pub(super) fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The columns of an [`EventRow`](super::rows::EventRow), in its order.
macro_rules! event_columns {
    () => {
        (
            dsl::id,
            dsl::event_id,
            dsl::original_id,
            dsl::producer,
            dsl::user_id,
            dsl::event_type,
            dsl::event_data,
            dsl::schema_version,
            dsl::session_id,
            dsl::timestamp,
            dsl::received_at,
            dsl::source,
            dsl::processed,
        )
    };
}

/// Adds the conditions of an [`EventFilter`](super::EventFilter) to a boxed query.
macro_rules! filter_events {
    ($query:expr, $filter:expr) => {{
        use $crate::store::rows::TimeColumn;
        let (mut query, filter): (_, &$crate::store::EventFilter) = ($query, $filter);
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
            query = query.filter(dsl::timestamp.ge(TimeColumn::bound(from)));
        }
        if let Some(to) = filter.to {
            query = query.filter(dsl::timestamp.lt(TimeColumn::bound(to)));
        }
        query
    }};
}

/// The number of events by the values of a field, largest first, as `(Option<String>, i64)`. Reads
/// everything that passes the filter.
macro_rules! count_events {
    ($field:expr, $filter:expr) => {{
        use diesel::dsl::{count_star, sql};
        use diesel::sql_types::{Nullable, Text};
        use $crate::store::{CountBy, queries};
        let field: CountBy = $field;
        let column = || {
            sql::<Nullable<Text>>(match field {
                CountBy::Type => "event_type",
                CountBy::Source => "source",
                CountBy::User => "user_id",
            })
        };
        let query = dsl::user_interactions
            .group_by(column())
            .select((column(), count_star()))
            .into_boxed();
        queries::filter_events!(query, $filter)
            .order(count_star().desc())
            .limit(queries::MAX_KEYS)
    }};
}

/// The columns of a [`DeadLetterSummaryRow`](super::rows::DeadLetterSummaryRow), in its order.
macro_rules! dead_letter_summary_columns {
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
            diesel::dsl::sql::<diesel::sql_types::BigInt>("CAST(length(body) AS bigint)"),
        )
    };
}

/// The [`DeadLetterRow`](super::rows::DeadLetterRow) of an id.
macro_rules! dead_letter {
    ($id:expr) => {
        dsl::dead_letters
            .filter(dsl::id.eq($crate::store::rows::IdColumn($id)))
            .select((
                $crate::store::queries::dead_letter_summary_columns!(),
                dsl::frame,
                dsl::content_type,
                dsl::message_id,
                dsl::body,
                dsl::headers,
                dsl::history,
            ))
    };
}

/// Adds the conditions of a [`DeadLetterFilter`](super::dead_letters::DeadLetterFilter) to a boxed
/// query.
macro_rules! filter_dead_letters {
    ($query:expr, $filter:expr) => {{
        use $crate::store::dead_letters::DeadLetterFilter;
        use $crate::store::rows::{IdColumn, TimeColumn};
        let (mut query, filter): (_, &DeadLetterFilter) = ($query, $filter);
        if let Some(ids) = &filter.ids {
            let ids: Vec<IdColumn> = ids.iter().copied().map(IdColumn).collect();
            query = query.filter(dsl::id.eq_any(ids));
        }
        if let Some(cause) = &filter.cause {
            query = query.filter(dsl::cause.eq(cause.as_str()));
        }
        if let Some(event_type) = &filter.event_type {
            query = query.filter(dsl::event_type.eq(event_type.as_str()));
        }
        if let Some(from) = filter.from {
            query = query.filter(dsl::failed_at.ge(TimeColumn::bound(from)));
        }
        if let Some(to) = filter.to {
            query = query.filter(dsl::failed_at.lt(TimeColumn::bound(to)));
        }
        if let Some(state) = filter.state {
            query = query.filter(dsl::state.eq(state.as_str()));
        }
        query
    }};
}

/// One page of dead letters, as summaries.
macro_rules! dead_letter_page {
    ($filter:expr, $order:expr, $after:expr, $limit:expr) => {{
        use $crate::store::dead_letters::{DeadLetterOrder, DeadLetterPosition};
        use $crate::store::queries;
        use $crate::store::rows::{IdColumn, TimeColumn};
        let (order, after): (DeadLetterOrder, Option<DeadLetterPosition>) = ($order, $after);
        let query = dsl::dead_letters
            .select(queries::dead_letter_summary_columns!())
            .into_boxed();
        let mut query =
            queries::filter_dead_letters!(query, $filter).limit(queries::as_limit($limit));
        if let Some(after) = after {
            let (at, id) = (TimeColumn(after.created_at), IdColumn(after.id));
            // The first condition follows from the second; alone it is a range of the index.
            query = match order {
                DeadLetterOrder::Newest => query
                    .filter(dsl::created_at.le(at))
                    .filter(dsl::created_at.lt(at).or(dsl::id.lt(id))),
                DeadLetterOrder::Oldest => query
                    .filter(dsl::created_at.ge(at))
                    .filter(dsl::created_at.gt(at).or(dsl::id.gt(id))),
            };
        }
        match order {
            DeadLetterOrder::Newest => query.order((dsl::created_at.desc(), dsl::id.desc())),
            DeadLetterOrder::Oldest => query.order((dsl::created_at.asc(), dsl::id.asc())),
        }
    }};
}

/// The number of dead letters that pass a filter, as `i64`.
macro_rules! count_dead_letters {
    ($filter:expr) => {{
        let query = dsl::dead_letters
            .select(diesel::dsl::count_star())
            .into_boxed();
        $crate::store::queries::filter_dead_letters!(query, $filter)
    }};
}

pub(super) use {
    count_dead_letters, count_events, dead_letter, dead_letter_page, dead_letter_summary_columns,
    event_columns, filter_dead_letters, filter_events,
};

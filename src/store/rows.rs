//! Rows as diesel reads them, from either database.
//!
//! A time, an id and a JSON document have one type here and a column type for each database:
//! PostgreSQL has types of its own, SQLite keeps microseconds, bytes and text.

use super::dead_letters::{DeadLetter, DeadLetterFailure, DeadLetterState, DeadLetterSummary};
use super::{Page, times};
use crate::event::StoredEvent;
use chrono::{DateTime, Utc};
use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::sql_types;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A time; microseconds since 1970 in SQLite.
#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[cfg_attr(feature = "postgres", diesel(sql_type = sql_types::Timestamptz))]
#[cfg_attr(feature = "sqlite", diesel(sql_type = sql_types::BigInt))]
pub(super) struct TimeColumn(pub(super) DateTime<Utc>);

impl TimeColumn {
    /// The bound of a filter, as fine as times are kept.
    pub(super) fn bound(time: DateTime<Utc>) -> Self {
        Self(times::bound(time))
    }
}

/// An id; its sixteen bytes in SQLite.
#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[cfg_attr(feature = "postgres", diesel(sql_type = sql_types::Uuid))]
#[cfg_attr(feature = "sqlite", diesel(sql_type = sql_types::Binary))]
pub(super) struct IdColumn(pub(super) Uuid);

/// A JSON document as its text, which is not parsed into a tree.
#[derive(Debug, FromSqlRow)]
pub(super) struct JsonColumn(pub(super) Box<RawValue>);

impl JsonColumn {
    /// The value it spells.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, diesel::result::Error> {
        serde_json::from_str(self.0.get())
            .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
    }
}

/// A row of the log.
#[derive(Debug, diesel::Queryable)]
pub(super) struct EventRow {
    pub(super) id: i64,
    event_id: IdColumn,
    original_id: Option<String>,
    producer: String,
    user_id: Option<String>,
    event_type: String,
    event_data: JsonColumn,
    schema_version: Option<i16>,
    session_id: Option<String>,
    timestamp: TimeColumn,
    received_at: TimeColumn,
    source: String,
    processed: bool,
}

impl From<EventRow> for StoredEvent {
    fn from(row: EventRow) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id.0,
            original_id: row.original_id,
            producer: row.producer,
            user_id: row.user_id,
            event_type: row.event_type,
            event_data: row.event_data.0,
            schema_version: row.schema_version,
            session_id: row.session_id,
            timestamp: row.timestamp.0,
            received_at: row.received_at.0,
            source: row.source,
            processed: row.processed,
        }
    }
}

/// The page that these rows are, of at most `limit`.
pub(super) fn page(rows: Vec<EventRow>, limit: usize) -> Page {
    let full = limit > 0 && rows.len() >= limit;
    Page {
        next: rows.last().map(|row| row.id).filter(|_| full),
        events: rows.into_iter().map(Into::into).collect(),
    }
}

/// A dead letter without what may be large.
#[derive(diesel::Queryable)]
pub(super) struct DeadLetterSummaryRow {
    id: IdColumn,
    state: String,
    created_at: TimeColumn,
    failed_at: TimeColumn,
    replayed_at: Option<TimeColumn>,
    replays: i32,
    attempts: i32,
    cause: String,
    error: String,
    sqlstate: Option<String>,
    origin: String,
    event_id: Option<IdColumn>,
    event_type: Option<String>,
    body_bytes: i64,
}

impl From<DeadLetterSummaryRow> for DeadLetterSummary {
    fn from(row: DeadLetterSummaryRow) -> Self {
        Self {
            id: row.id.0,
            event_id: row.event_id.map(|id| id.0),
            event_type: row.event_type,
            failure: DeadLetterFailure {
                at: row.failed_at.0,
                cause: row.cause,
                error: row.error,
                sqlstate: row.sqlstate,
                attempts: u32::try_from(row.attempts).unwrap_or(0),
            },
            origin: row.origin,
            created_at: row.created_at.0,
            state: DeadLetterState::parse(&row.state).unwrap_or(DeadLetterState::Dead),
            replayed_at: row.replayed_at.map(|at| at.0),
            replays: u32::try_from(row.replays).unwrap_or(0),
            body_bytes: row.body_bytes.unsigned_abs(),
        }
    }
}

#[derive(diesel::Queryable)]
pub(super) struct DeadLetterRow {
    summary: DeadLetterSummaryRow,
    frame: bool,
    content_type: Option<String>,
    message_id: Option<String>,
    body: Vec<u8>,
    headers: JsonColumn,
    history: JsonColumn,
}

impl TryFrom<DeadLetterRow> for DeadLetter {
    type Error = diesel::result::Error;

    fn try_from(row: DeadLetterRow) -> Result<Self, Self::Error> {
        let summary = DeadLetterSummary::from(row.summary);
        Ok(Self {
            id: summary.id,
            event_id: summary.event_id,
            event_type: summary.event_type,
            failure: summary.failure,
            origin: summary.origin,
            content_type: row.content_type,
            message_id: row.message_id,
            frame: row.frame,
            body: row.body,
            headers: row.headers.parse()?,
            created_at: summary.created_at,
            history: row.history.parse()?,
            state: summary.state,
            replayed_at: summary.replayed_at,
            replays: summary.replays,
        })
    }
}

/// The columns as PostgreSQL's types.
#[cfg(feature = "postgres")]
mod as_postgres {
    use super::{IdColumn, JsonColumn, TimeColumn};
    use chrono::{DateTime, Utc};
    use diesel::deserialize::{self, FromSql};
    use diesel::pg::{Pg, PgValue};
    use diesel::serialize::{self, Output, ToSql};
    use diesel::sql_types::{self, Jsonb, Timestamptz};
    use serde_json::value::RawValue;

    impl FromSql<Timestamptz, Pg> for TimeColumn {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            // Microseconds since 2000. A row that was inserted by hand may have a time beyond what chrono
            // has, or infinity: the nearest one, so that all others can be read.
            let since_2000 = <i64 as FromSql<sql_types::BigInt, Pg>>::from_sql(value)?;
            let nearest = match since_2000 {
                ..0 => DateTime::<Utc>::MIN_UTC,
                _ => DateTime::<Utc>::MAX_UTC,
            };
            let time = since_2000
                .checked_add(946_684_800_000_000)
                .and_then(DateTime::from_timestamp_micros);
            Ok(Self(time.unwrap_or(nearest)))
        }
    }

    impl ToSql<Timestamptz, Pg> for TimeColumn {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<Timestamptz, Pg>::to_sql(&self.0, out)
        }
    }

    impl FromSql<sql_types::Uuid, Pg> for IdColumn {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            FromSql::<sql_types::Uuid, Pg>::from_sql(value).map(Self)
        }
    }

    impl ToSql<sql_types::Uuid, Pg> for IdColumn {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<sql_types::Uuid, Pg>::to_sql(&self.0, out)
        }
    }

    impl FromSql<Jsonb, Pg> for JsonColumn {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            // One byte of version, then the text.
            let Some((1, text)) = value.as_bytes().split_first() else {
                return Err("jsonb of an unknown version".into());
            };
            let text = String::from_utf8(text.to_vec())?;
            Ok(Self(RawValue::from_string(text)?))
        }
    }
}

/// The columns as SQLite's types.
#[cfg(feature = "sqlite")]
mod as_sqlite {
    use super::{IdColumn, JsonColumn, TimeColumn};
    use chrono::DateTime;
    use diesel::deserialize::{self, FromSql};
    use diesel::serialize::{self, IsNull, Output, ToSql};
    use diesel::sql_types::{BigInt, Binary, Text};
    use diesel::sqlite::{Sqlite, SqliteValue};
    use serde_json::value::RawValue;
    use uuid::Uuid;

    impl FromSql<BigInt, Sqlite> for TimeColumn {
        fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
            let time = DateTime::from_timestamp_micros(micros).ok_or("time out of range")?;
            Ok(Self(time))
        }
    }

    impl ToSql<BigInt, Sqlite> for TimeColumn {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.timestamp_micros());
            Ok(IsNull::No)
        }
    }

    impl FromSql<Binary, Sqlite> for IdColumn {
        fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
            Ok(Self(Uuid::from_slice(&bytes)?))
        }
    }

    impl ToSql<Binary, Sqlite> for IdColumn {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.as_bytes().as_slice());
            Ok(IsNull::No)
        }
    }

    impl FromSql<Text, Sqlite> for JsonColumn {
        fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
            Ok(Self(RawValue::from_string(text)?))
        }
    }
}

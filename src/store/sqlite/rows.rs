//! A row of the log as diesel reads it.

use super::schema::user_interactions::{self, dsl};
use crate::event::StoredEvent;
use chrono::{DateTime, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A time, kept as microseconds since 1970.
#[derive(Debug, FromSqlRow)]
pub(super) struct Micros(pub(super) DateTime<Utc>);

impl FromSql<BigInt, Sqlite> for Micros {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
        let time = DateTime::from_timestamp_micros(micros).ok_or("time out of range")?;
        Ok(Self(time))
    }
}

/// An id, kept as its sixteen bytes.
#[derive(Debug, FromSqlRow)]
pub(super) struct Id(pub(super) Uuid);

impl FromSql<Binary, Sqlite> for Id {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
        Ok(Self(Uuid::from_slice(&bytes)?))
    }
}

/// A payload, kept as its text.
#[derive(Debug, FromSqlRow)]
pub(super) struct Payload(Box<RawValue>);

impl Payload {
    /// The value it spells.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, diesel::result::Error> {
        serde_json::from_str(self.0.get())
            .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
    }
}

impl FromSql<Text, Sqlite> for Payload {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        Ok(Self(RawValue::from_string(text)?))
    }
}

/// The columns of [`Row`], in its order.
pub(super) type Selection = (
    dsl::id,
    dsl::event_id,
    dsl::original_id,
    dsl::producer,
    dsl::user_id,
    dsl::event_type,
    dsl::event_data,
    dsl::session_id,
    dsl::timestamp,
    dsl::received_at,
    dsl::source,
    dsl::processed,
);

/// A query for [`Row`]s.
pub(super) type Select<'a> =
    diesel::dsl::IntoBoxed<'a, diesel::dsl::Select<user_interactions::table, Selection>, Sqlite>;

/// The columns of [`Row`], as values.
pub(super) fn selection() -> Selection {
    (
        dsl::id,
        dsl::event_id,
        dsl::original_id,
        dsl::producer,
        dsl::user_id,
        dsl::event_type,
        dsl::event_data,
        dsl::session_id,
        dsl::timestamp,
        dsl::received_at,
        dsl::source,
        dsl::processed,
    )
}

/// A row of the log.
#[derive(Debug, diesel::Queryable)]
pub(super) struct Row {
    id: i64,
    event_id: Id,
    original_id: Option<String>,
    producer: String,
    user_id: Option<String>,
    event_type: String,
    event_data: Payload,
    session_id: Option<String>,
    timestamp: Micros,
    received_at: Micros,
    source: String,
    processed: bool,
}

impl From<Row> for StoredEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id.0,
            original_id: row.original_id,
            producer: row.producer,
            user_id: row.user_id,
            event_type: row.event_type,
            event_data: row.event_data.0,
            session_id: row.session_id,
            timestamp: row.timestamp.0,
            received_at: row.received_at.0,
            source: row.source,
            processed: row.processed,
        }
    }
}

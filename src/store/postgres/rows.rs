//! A row of the log as diesel reads it.

use super::schema::user_interactions::{self, dsl};
use crate::event::StoredEvent;
use crate::store::TailPosition;
use chrono::{DateTime, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::sql_types::Jsonb;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A payload as text. `jsonb` travels as one byte of version and its text, so it is never parsed
/// into a tree here.
#[derive(Debug, FromSqlRow)]
pub(super) struct Payload(Box<RawValue>);

impl Payload {
    /// The value it spells.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, diesel::result::Error> {
        serde_json::from_str(self.0.get())
            .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
    }
}

impl FromSql<Jsonb, Pg> for Payload {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let Some((1, text)) = value.as_bytes().split_first() else {
            return Err("jsonb of an unknown version".into());
        };
        let text = String::from_utf8(text.to_vec())?;
        Ok(Self(RawValue::from_string(text)?))
    }
}

/// The columns of [`Row`], in its order.
pub(super) type Selection = (
    dsl::id,
    dsl::transaction,
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
    diesel::dsl::IntoBoxed<'a, diesel::dsl::Select<user_interactions::table, Selection>, Pg>;

/// The columns of [`Row`], as values.
pub(super) fn selection() -> Selection {
    (
        dsl::id,
        dsl::transaction,
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
    transaction: i64,
    event_id: Uuid,
    original_id: Option<String>,
    producer: String,
    user_id: Option<String>,
    event_type: String,
    event_data: Payload,
    session_id: Option<String>,
    timestamp: DateTime<Utc>,
    received_at: DateTime<Utc>,
    source: String,
    processed: bool,
}

impl Row {
    /// Its place in the order of commit.
    pub(super) fn position(&self) -> TailPosition {
        TailPosition {
            transaction: self.transaction,
            id: self.id,
        }
    }
}

impl From<Row> for StoredEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            original_id: row.original_id,
            producer: row.producer,
            user_id: row.user_id,
            event_type: row.event_type,
            event_data: row.event_data.0,
            session_id: row.session_id,
            timestamp: row.timestamp,
            received_at: row.received_at,
            source: row.source,
            processed: row.processed,
        }
    }
}

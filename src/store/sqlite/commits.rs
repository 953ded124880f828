//! The log in the order of commits, which with one writer is the order of `id`.

use super::SqliteStore;
use super::read;
use super::schema::{log_generation, user_interactions::dsl};
use crate::event::StoredEvent;
use crate::store::commit_log::{
    Chunk, CommitLog, LoggedEvent, Numbered, Peers, Position, Selection, Span, Stretch,
};
use crate::store::rows::EventRow;
use crate::store::{StoreError, queries};
use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows whose type one read looks at, for each event that it may give.
const LOOKED_AT: usize = 8;
/// The bytes of a payload, which SQLite knows without reading it.
const SIZE: &str = "octet_length(event_data)";

pub(super) fn read_after(
    connection: &mut SqliteConnection,
    selection: &Selection,
    span: Span,
) -> QueryResult<Chunk> {
    let look = span.events.saturating_mul(LOOKED_AT);
    // What is committed from here on is for the next read.
    let last = Position(read::last_id(connection)?).min(span.until);
    let looked: Vec<(i64, String, i64)> = dsl::user_interactions
        .select((dsl::id, dsl::event_type, sql::<BigInt>(SIZE)))
        .filter(dsl::id.gt(span.after.0))
        .filter(dsl::id.le(last.0))
        .order(dsl::id)
        .limit(queries::as_limit(look))
        .load(connection)?;
    let mut read_to = match looked.last() {
        Some((id, ..)) if looked.len() >= look => Position(*id),
        _ => span.after.max(last),
    };
    let mut types: BTreeSet<&str> = BTreeSet::new();
    let (mut events, mut bytes) = (0_usize, 0_i64);
    for (id, event_type, size) in &looked {
        if types.contains(event_type.as_str()) || selection.types.matches(event_type) {
            types.insert(event_type);
            events += 1;
            bytes = bytes.saturating_add(*size);
            if events >= span.events || bytes >= queries::as_limit(span.bytes) {
                read_to = Position(*id);
                break;
            }
        }
    }
    if types.is_empty() {
        return Ok(Chunk {
            events: Vec::new(),
            read_to,
        });
    }
    let query = dsl::user_interactions
        .select(queries::event_columns!())
        .into_boxed();
    let rows: Vec<EventRow> = queries::filter_events!(query, &selection.filter)
        .filter(dsl::event_type.eq_any(types))
        .filter(dsl::id.gt(span.after.0))
        .filter(dsl::id.le(read_to.0))
        .order(dsl::id)
        .load(connection)?;
    let events = rows.into_iter().map(StoredEvent::from);
    let events = events.map(|event| LoggedEvent {
        position: Position(event.id),
        event,
    });
    Ok(Chunk {
        events: events.collect(),
        read_to,
    })
}

fn stretches(
    connection: &mut SqliteConnection,
    after: Position,
    limit: usize,
) -> QueryResult<Vec<Stretch>> {
    let rows: Vec<(i64, String)> = dsl::user_interactions
        .select((dsl::id, dsl::event_type))
        .filter(dsl::id.gt(after.0))
        .order(dsl::id)
        .limit(queries::as_limit(limit))
        .load(connection)?;
    let Some((last, _)) = rows.last() else {
        return Ok(Vec::new());
    };
    let end = Position(*last);
    let types: BTreeSet<String> = rows.into_iter().map(|(_, event_type)| event_type).collect();
    Ok(vec![Stretch {
        end,
        types: types.into_iter().collect(),
    }])
}

fn backlog(connection: &mut SqliteConnection, position: Position) -> QueryResult<(u64, f64)> {
    let last = read::last_id(connection)?;
    let first: Option<i64> = dsl::user_interactions
        .select(dsl::received_at)
        .filter(dsl::id.gt(position.0))
        .order(dsl::id)
        .first(connection)
        .optional()?;
    let Some(first) = first else {
        return Ok((0, 0.0));
    };
    let waited = super::leases::now(connection)?.saturating_sub(first).max(0);
    Ok((
        last.saturating_sub(position.0).unsigned_abs(),
        std::time::Duration::from_micros(waited.unsigned_abs()).as_secs_f64(),
    ))
}

pub(super) fn generation(connection: &mut SqliteConnection) -> QueryResult<i64> {
    log_generation::table
        .select(log_generation::generation)
        .first(connection)
}

#[async_trait]
impl CommitLog for SqliteStore {
    async fn number_commits(&self) -> Result<Numbered, StoreError> {
        Ok(Numbered {
            commits: 0,
            end: self.end().await?,
            session: 0,
        })
    }

    async fn end(&self) -> Result<Position, StoreError> {
        let end = self.readers.read(|c| Ok(read::last_id(c)?)).await?;
        Ok(Position(end))
    }

    async fn is_followed(&self) -> Result<bool, StoreError> {
        // Only by this process.
        Ok(false)
    }

    async fn stretches(&self, after: Position, limit: usize) -> Result<Vec<Stretch>, StoreError> {
        self.readers
            .read(move |connection| Ok(stretches(connection, after, limit)?))
            .await
    }

    async fn read_after(&self, selection: &Selection, span: Span) -> Result<Chunk, StoreError> {
        let selection = selection.clone();
        self.readers
            .read(move |connection| Ok(read_after(connection, &selection, span)?))
            .await
    }

    async fn backlog(&self, position: Position) -> Result<(u64, f64), StoreError> {
        self.readers
            .read(move |connection| Ok(backlog(connection, position)?))
            .await
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        self.readers.read(|c| Ok(generation(c)?)).await
    }

    async fn new_generation(&self) -> Result<i64, StoreError> {
        self.writer
            .ask(1, |connection| {
                diesel::update(log_generation::table)
                    .set(log_generation::generation.eq(log_generation::generation + 1))
                    .execute(connection)?;
                Ok(generation(connection)?)
            })
            .await
    }

    async fn exchange(&self, _peers: Arc<Peers>) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

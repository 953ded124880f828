//! Reads of subscribers.

use super::SqliteStore;
use super::commits::read_after;
use super::read::last_id;
use super::schema::{log_floor, user_interactions::dsl};
use crate::store::StoreError;
use crate::store::commit_log::{Position, Selection, Span, TypePatterns};
use crate::store::queries::as_limit;
use crate::store::rows::TimeColumn;
use crate::store::topics::{CountedTypes, LogBounds, TopicChunk, TopicStore, TypeCount};
use async_trait::async_trait;
use chrono::DateTime;
use diesel::dsl::{count_star, max, min};
use diesel::prelude::*;

fn deleted_to(connection: &mut SqliteConnection) -> QueryResult<Position> {
    let position: i64 = log_floor::table
        .select(log_floor::deleted_to)
        .first(connection)?;
    Ok(Position(position))
}

fn read_topic(
    connection: &mut SqliteConnection,
    selection: &Selection,
    span: Span,
) -> QueryResult<TopicChunk> {
    let end = Position(last_id(connection)?);
    let chunk = read_after(connection, selection, span)?;
    Ok(TopicChunk {
        chunk,
        end,
        deleted_to: deleted_to(connection)?,
    })
}

fn count_types(
    connection: &mut SqliteConnection,
    after: Position,
    events: usize,
) -> QueryResult<CountedTypes> {
    let first: Option<i64> = dsl::user_interactions
        .select(min(dsl::id))
        .filter(dsl::id.gt(after.0))
        .get_result(connection)?;
    let Some(first) = first else {
        return Ok(CountedTypes {
            counts: Vec::new(),
            to: after,
        });
    };
    let to = first
        .saturating_add(as_limit(events).max(1) - 1)
        .min(last_id(connection)?);
    type CountRow = (String, i64, Option<TimeColumn>, Option<TimeColumn>);
    let rows: Vec<CountRow> = dsl::user_interactions
        .group_by(dsl::event_type)
        .select((
            dsl::event_type,
            count_star(),
            min(dsl::received_at),
            max(dsl::received_at),
        ))
        .filter(dsl::id.gt(after.0))
        .filter(dsl::id.le(to))
        .load(connection)?;
    let counts = rows.into_iter().map(|(event_type, events, first, last)| {
        let time =
            |column: Option<TimeColumn>| column.map_or_else(DateTime::default, |time| time.0);
        TypeCount {
            event_type,
            events: events.unsigned_abs(),
            first: time(first),
            last: time(last),
        }
    });
    Ok(CountedTypes {
        counts: counts.collect(),
        to: Position(to),
    })
}

#[async_trait]
impl TopicStore for SqliteStore {
    async fn log_bounds(&self) -> Result<LogBounds, StoreError> {
        self.readers
            .read(|connection| {
                Ok(LogBounds {
                    end: Position(last_id(connection)?),
                    deleted_to: deleted_to(connection)?,
                })
            })
            .await
    }

    async fn read_topic(&self, types: &TypePatterns, span: Span) -> Result<TopicChunk, StoreError> {
        let selection = Selection {
            types: types.clone(),
            ..Selection::default()
        };
        self.readers
            .read(move |connection| Ok(read_topic(connection, &selection, span)?))
            .await
    }

    async fn count_types(
        &self,
        after: Position,
        events: usize,
    ) -> Result<CountedTypes, StoreError> {
        self.readers
            .read(move |connection| Ok(count_types(connection, after, events)?))
            .await
    }
}

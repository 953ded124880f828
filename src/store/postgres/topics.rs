//! Reads of subscribers, on connections of their own: however many there are, followers and queries do not wait for
//! them.

use super::PostgresStore;
use super::commits::{behind, end, read, seq_of};
use super::prepared::Prepare;
use super::schema::{log_commits, log_floor};
use crate::store::commit_log::{Position, Selection, Span, TypePatterns};
use crate::store::rows::TimeColumn;
use crate::store::topics::{CountedTypes, LogBounds, TopicChunk, TopicStore, TypeCount};
use crate::store::{StoreError, queries};
use async_trait::async_trait;
use chrono::NaiveDate;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Date, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;

/// Headers that one count looks at.
const COUNTED_HEADERS: usize = 5_000;

async fn deleted_to(connection: &mut AsyncPgConnection) -> QueryResult<Position> {
    let position: i64 = log_floor::table
        .select(log_floor::deleted_to)
        .first(connection)
        .await?;
    Ok(Position(position))
}

async fn read_topic(
    connection: &mut AsyncPgConnection,
    selection: &Selection,
    span: Span,
) -> QueryResult<TopicChunk> {
    let end = end(connection).await?;
    let chunk = read(connection, selection, span).await?;
    Ok(TopicChunk {
        chunk,
        end,
        deleted_to: deleted_to(connection).await?,
    })
}

const COUNT: &str = "\
    SELECT event_type, count(*) AS events, min(received_at) AS first, max(received_at) AS last \
    FROM unnest($1::bigint[]) AS commits (block) \
    CROSS JOIN LATERAL ( \
        SELECT event_type, received_at FROM user_interactions \
        WHERE id >= commits.block << 12 AND id < (commits.block + 1) << 12 AND bucket = ANY ($2) \
        OFFSET 0 \
    ) AS event \
    GROUP BY event_type";

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    event_type: String,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = Timestamptz)]
    first: TimeColumn,
    #[diesel(sql_type = Timestamptz)]
    last: TimeColumn,
}

impl From<CountRow> for TypeCount {
    fn from(row: CountRow) -> Self {
        Self {
            event_type: row.event_type,
            events: row.events.unsigned_abs(),
            first: row.first.0,
            last: row.last.0,
        }
    }
}

async fn count_types(
    connection: &mut AsyncPgConnection,
    after: Position,
    most: usize,
) -> QueryResult<CountedTypes> {
    let headers: Vec<(i64, i64, i32, Vec<NaiveDate>)> = log_commits::table
        .select((
            log_commits::seq,
            log_commits::block,
            log_commits::events,
            log_commits::buckets,
        ))
        .filter(log_commits::seq.gt(seq_of(after)))
        .order(log_commits::seq)
        .limit(queries::as_limit(COUNTED_HEADERS))
        .load(connection)
        .await?;
    let (mut to, mut events) = (after, 0_usize);
    let (mut blocks, mut buckets) = (Vec::new(), BTreeSet::new());
    for (seq, block, number, days) in headers {
        if events >= most {
            break;
        }
        events = events.saturating_add(number.unsigned_abs() as usize);
        to = behind(seq);
        blocks.push(block);
        buckets.extend(days);
    }
    if blocks.is_empty() {
        return Ok(CountedTypes {
            counts: Vec::new(),
            to,
        });
    }
    let rows: Vec<CountRow> = diesel::sql_query(COUNT)
        .bind::<Array<BigInt>, _>(blocks)
        .bind::<Array<Date>, _>(buckets.into_iter().collect::<Vec<_>>())
        .prepared()
        .load(connection)
        .await?;
    Ok(CountedTypes {
        counts: rows.into_iter().map(Into::into).collect(),
        to,
    })
}

#[async_trait]
impl TopicStore for PostgresStore {
    async fn log_bounds(&self) -> Result<LogBounds, StoreError> {
        self.pools
            .topic(async |connection| {
                Ok(LogBounds {
                    end: end(connection).await?,
                    deleted_to: deleted_to(connection).await?,
                })
            })
            .await
    }

    async fn read_topic(&self, types: &TypePatterns, span: Span) -> Result<TopicChunk, StoreError> {
        let selection = Selection {
            types: types.clone(),
            ..Selection::default()
        };
        self.pools
            .topic(async |connection| read_topic(connection, &selection, span).await)
            .await
    }

    async fn count_types(
        &self,
        after: Position,
        events: usize,
    ) -> Result<CountedTypes, StoreError> {
        self.pools
            .topic(async |connection| count_types(connection, after, events).await)
            .await
    }
}

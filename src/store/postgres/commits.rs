//! The log in the order of commits: blocks, their numbers, and the events of a stretch.

use super::PostgresStore;
use super::listen;
use super::prepared::Prepare;
use super::schema::{followers, log_commits};
use crate::event::StoredEvent;
use crate::store::commit_log::{
    Chunk, CommitLog, Horizon, LoggedEvent, Look, Numbered, Peers, Position, Selection, Span,
    Stretch, Unnumbered,
};
use crate::store::followers::FollowerState;
use crate::store::rows::{IdColumn, JsonColumn, TimeColumn};
use crate::store::{StoreError, queries};
use async_trait::async_trait;
use chrono::NaiveDate;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Date, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Headers that one read looks at.
const MAX_HEADERS: usize = 5_000;
/// Headers that a backlog is summed over; beyond, it is estimated.
const MAX_SUMMED: i64 = 20_000;

/// The commit that a position lies in.
pub(super) fn seq_of(position: Position) -> i64 {
    position.0 >> 12
}

/// Behind the last event that a commit can have.
pub(super) fn behind(seq: i64) -> Position {
    match seq {
        0 => Position::START,
        seq => Position(seq << 12 | 0xfff),
    }
}

#[derive(QueryableByName)]
struct NumberedRow {
    #[diesel(sql_type = Array<BigInt>)]
    open: Vec<i64>,
    #[diesel(sql_type = Array<BigInt>)]
    later: Vec<i64>,
    #[diesel(sql_type = Integer)]
    numbered: i32,
    #[diesel(sql_type = BigInt)]
    last: i64,
    #[diesel(sql_type = Integer)]
    session: i32,
}

async fn number(connection: &mut AsyncPgConnection, look: &Look) -> QueryResult<(Numbered, Look)> {
    const NUMBER: &str = "SELECT open, later, numbered, last, pg_backend_pid() AS session \
         FROM eclusa_number_commits($1, $2, $3)";
    let later = look.later.as_ref();
    let row: NumberedRow = diesel::sql_query(NUMBER)
        .bind::<BigInt, _>(look.above.block)
        .bind::<Array<BigInt>, _>(&look.above.open)
        .bind::<Array<BigInt>, _>(later.map_or(&[][..], |horizon| &horizon.open))
        .prepared()
        .get_result(connection)
        .await?;
    let numbered = Numbered {
        commits: row.numbered.unsigned_abs(),
        end: behind(row.last),
        session: row.session,
    };
    let horizon = |block, open| Horizon { block, open };
    let look = Look {
        above: horizon(look.above.block, row.open),
        later: later.map(|known| horizon(known.block, row.later)),
    };
    Ok((numbered, look))
}

#[derive(QueryableByName)]
struct HorizonRow {
    #[diesel(sql_type = BigInt)]
    block: i64,
    #[diesel(sql_type = Array<BigInt>)]
    open: Vec<i64>,
}

const UNNUMBERED: &str = "\
    SELECT coalesce(sum(events), 0)::bigint AS events, \
           coalesce(extract(epoch FROM clock_timestamp() - min(inserted_at)), 0)::float8 AS seconds \
    FROM log_arrivals";

#[derive(QueryableByName)]
struct UnnumberedRow {
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = Double)]
    seconds: f64,
}

/// Behind the last numbered commit.
pub(super) async fn end(connection: &mut AsyncPgConnection) -> QueryResult<Position> {
    let last: Option<i64> = log_commits::table
        .select(diesel::dsl::max(log_commits::seq))
        .get_result(connection)
        .await?;
    Ok(behind(last.unwrap_or(0)))
}

/// Whether a commit may have events of the selection's types is decided here, so that the types of
/// those that have none need not travel.
const HEADERS: &str = "\
    SELECT seq, block, events, \
           CASE WHEN wanted THEN buckets ELSE '{}' END AS buckets, wanted \
    FROM (SELECT seq, block, events, buckets, \
                 $3 OR types && $4 \
                 OR EXISTS (SELECT FROM unnest(types) AS t (t) WHERE t LIKE ANY ($5)) AS wanted \
          FROM log_commits WHERE seq >= $1 AND seq <= $2 ORDER BY seq LIMIT $6) AS headers \
    ORDER BY seq";

#[derive(QueryableByName)]
struct Header {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    block: i64,
    #[diesel(sql_type = Integer)]
    events: i32,
    #[diesel(sql_type = Array<Date>)]
    buckets: Vec<NaiveDate>,
    #[diesel(sql_type = Bool)]
    wanted: bool,
}

/// The rows of blocks. `bucket = ANY` with the parameter prunes the partitions, and `OFFSET 0` keeps the
/// planner from reading them in another order. A row is given while the payloads before it are small
/// enough; `found` says how many there are without that bound. A small payload counts with its size on
/// the disk, since to write it out as text costs more than to add it up.
const EVENTS: &str = "\
    SELECT * FROM ( \
        SELECT found.*, count(*) OVER () AS found, \
               coalesce(sum(CASE WHEN stored < 1000 THEN stored \
                                 ELSE octet_length(event_data::text) END) \
                   OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) \
                   AS before \
        FROM ( \
            SELECT commits.seq << 12 | (event.id & 4095) AS position, event.*, \
                   pg_column_size(event.event_data) AS stored \
            FROM unnest($1::bigint[], $2::bigint[]) AS commits (seq, block) \
            CROSS JOIN LATERAL ( \
                SELECT id, event_id, original_id, producer, user_id, event_type, event_data, \
                       schema_version, session_id, \"timestamp\", received_at, source, processed \
                FROM user_interactions \
                WHERE id >= commits.block << 12 AND id < (commits.block + 1) << 12 \
                  AND bucket = ANY ($3) \
                  AND ($4 OR event_type = ANY ($5) OR event_type LIKE ANY ($6)) \
                  AND ($7 IS NULL OR user_id = $7) AND ($8 IS NULL OR session_id = $8) \
                  AND ($9 IS NULL OR event_type = $9) \
                  AND ($10 IS NULL OR \"timestamp\" >= $10) \
                  AND ($11 IS NULL OR \"timestamp\" < $11) \
                ORDER BY id OFFSET 0 \
            ) AS event \
            WHERE commits.seq << 12 | (event.id & 4095) > $12 \
              AND commits.seq << 12 | (event.id & 4095) <= $13 \
            ORDER BY position LIMIT $14 \
        ) AS found \
    ) AS measured \
    WHERE before < $15 ORDER BY position";

#[derive(QueryableByName)]
struct LogRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    found: i64,
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Uuid)]
    event_id: IdColumn,
    #[diesel(sql_type = Nullable<Text>)]
    original_id: Option<String>,
    #[diesel(sql_type = Text)]
    producer: String,
    #[diesel(sql_type = Nullable<Text>)]
    user_id: Option<String>,
    #[diesel(sql_type = Text)]
    event_type: String,
    #[diesel(sql_type = Jsonb)]
    event_data: JsonColumn,
    #[diesel(sql_type = Nullable<SmallInt>)]
    schema_version: Option<i16>,
    #[diesel(sql_type = Nullable<Text>)]
    session_id: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    timestamp: TimeColumn,
    #[diesel(sql_type = Timestamptz)]
    received_at: TimeColumn,
    #[diesel(sql_type = Text)]
    source: String,
    #[diesel(sql_type = Bool)]
    processed: bool,
}

impl From<LogRow> for LoggedEvent {
    fn from(row: LogRow) -> Self {
        Self {
            position: Position(row.position),
            event: StoredEvent {
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
            },
        }
    }
}

pub(super) async fn read(
    connection: &mut AsyncPgConnection,
    selection: &Selection,
    span: Span,
) -> QueryResult<Chunk> {
    let types = &selection.types;
    let headers: Vec<Header> = diesel::sql_query(HEADERS)
        .bind::<BigInt, _>(seq_of(span.after))
        .bind::<BigInt, _>(seq_of(span.until))
        .bind::<Bool, _>(types.is_all())
        .bind::<Array<Text>, _>(types.exact())
        .bind::<Array<Text>, _>(types.as_like())
        .bind::<BigInt, _>(queries::as_limit(MAX_HEADERS))
        .prepared()
        .load(connection)
        .await?;
    let all = headers.len() < MAX_HEADERS;
    let mut read_to = span.after;
    let mut expected = 0_usize;
    let (mut seqs, mut blocks, mut buckets) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut complete = true;
    for header in headers {
        // The one that the position lies behind the last event of, perhaps.
        if behind(header.seq) <= span.after {
            continue;
        }
        if expected >= span.events {
            complete = false;
            break;
        }
        read_to = behind(header.seq);
        if header.wanted {
            expected = expected.saturating_add(header.events.unsigned_abs() as usize);
            seqs.push(header.seq);
            blocks.push(header.block);
            buckets.extend(header.buckets);
        }
    }
    if complete && all && span.until < Position::MAX {
        // A number that was drawn in a transaction that failed has no header.
        read_to = read_to.max(span.until);
    }
    let read_to = read_to.min(span.until);
    if blocks.is_empty() {
        return Ok(Chunk {
            events: Vec::new(),
            read_to,
        });
    }
    let filter = &selection.filter;
    let rows: Vec<LogRow> = diesel::sql_query(EVENTS)
        .bind::<Array<BigInt>, _>(seqs)
        .bind::<Array<BigInt>, _>(blocks)
        .bind::<Array<Date>, _>(buckets.into_iter().collect::<Vec<_>>())
        .bind::<Bool, _>(types.is_all())
        .bind::<Array<Text>, _>(types.exact())
        .bind::<Array<Text>, _>(types.as_like())
        .bind::<Nullable<Text>, _>(&filter.user_id)
        .bind::<Nullable<Text>, _>(&filter.session_id)
        .bind::<Nullable<Text>, _>(&filter.event_type)
        .bind::<Nullable<Timestamptz>, _>(filter.from.map(TimeColumn::bound))
        .bind::<Nullable<Timestamptz>, _>(filter.to.map(TimeColumn::bound))
        .bind::<BigInt, _>(span.after.0)
        .bind::<BigInt, _>(span.until.0)
        .bind::<BigInt, _>(queries::as_limit(span.events))
        .bind::<BigInt, _>(queries::as_limit(span.bytes))
        .prepared()
        .load(connection)
        .await?;
    // Of a full answer the stretch may have more: beyond the number, or beyond the bytes.
    let found = rows.as_slice().first().map_or(0, |row| row.found);
    let full = rows.len() >= span.events || queries::as_limit(rows.len()) < found;
    let events: Vec<LoggedEvent> = rows.into_iter().map(Into::into).collect();
    Ok(Chunk {
        read_to: match events.last() {
            Some(last) if full => last.position,
            _ => read_to,
        },
        events,
    })
}

const BACKLOG: &str = "\
    SELECT coalesce(sum(events), 0)::bigint AS events, count(*) AS commits, \
           coalesce(max(seq), 0) AS last, \
           coalesce(extract(epoch FROM clock_timestamp() - min(numbered_at)), 0)::float8 AS seconds \
    FROM (SELECT seq, events, numbered_at FROM log_commits \
          WHERE seq > $1 ORDER BY seq LIMIT $2) AS waiting";

#[derive(QueryableByName)]
struct BacklogRow {
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = BigInt)]
    commits: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
    #[diesel(sql_type = Double)]
    seconds: f64,
}

async fn backlog(
    connection: &mut AsyncPgConnection,
    position: Position,
) -> QueryResult<(u64, f64)> {
    // The rest of a commit in whose middle the position lies counts with the next one at the latest.
    let from = match position.0 & 0xfff {
        0xfff => seq_of(position),
        _ => seq_of(position).saturating_sub(1),
    };
    let row: BacklogRow = diesel::sql_query(BACKLOG)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(MAX_SUMMED)
        .prepared()
        .get_result(connection)
        .await?;
    let mut events = row.events.unsigned_abs();
    if row.commits >= MAX_SUMMED {
        let newest = seq_of(end(connection).await?);
        let more = newest.saturating_sub(row.last).unsigned_abs();
        let mean = events / row.commits.unsigned_abs().max(1);
        events = events.saturating_add(more.saturating_mul(mean));
    }
    Ok((events, row.seconds.max(0.0)))
}

diesel::define_sql_function! {
    fn eclusa_log_generation() -> BigInt;
}

pub(super) async fn generation(connection: &mut AsyncPgConnection) -> QueryResult<i64> {
    diesel::select(eclusa_log_generation())
        .get_result(connection)
        .await
}

#[async_trait]
impl CommitLog for PostgresStore {
    async fn number_commits(&self) -> Result<Numbered, StoreError> {
        Ok(self.number_with(Look::default()).await?.0)
    }

    async fn number_with(&self, look: Look) -> Result<(Numbered, Look), StoreError> {
        self.pools
            .sequence(async |connection| number(connection, &look).await)
            .await
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        const HORIZON: &str = "SELECT block, open FROM eclusa_log_horizon()";
        let read = async |connection: &mut AsyncPgConnection| {
            diesel::sql_query(HORIZON).get_result(connection).await
        };
        let row: HorizonRow = self.pools.sequence(read).await?;
        Ok(Horizon {
            block: row.block,
            open: row.open,
        })
    }

    async fn end(&self) -> Result<Position, StoreError> {
        self.pools
            .read(async |connection| end(connection).await)
            .await
    }

    async fn unnumbered(&self) -> Result<Unnumbered, StoreError> {
        let read = async |connection: &mut AsyncPgConnection| {
            diesel::sql_query(UNNUMBERED)
                .prepared()
                .get_result(connection)
                .await
        };
        let row: UnnumberedRow = self.pools.read(read).await?;
        Ok(Unnumbered {
            events: row.events.unsigned_abs(),
            seconds: row.seconds.max(0.0),
        })
    }

    async fn is_followed(&self) -> Result<bool, StoreError> {
        let running = followers::table.filter(followers::state.eq(FollowerState::Running.as_str()));
        let followed = diesel::select(diesel::dsl::exists(running));
        self.pools
            .sequence(async |connection| followed.get_result(connection).await)
            .await
    }

    async fn stretches(&self, after: Position, limit: usize) -> Result<Vec<Stretch>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            log_commits::table
                .select((log_commits::seq, log_commits::types))
                .filter(log_commits::seq.gt(seq_of(after)))
                .order(log_commits::seq)
                .limit(queries::as_limit(limit))
                .load::<(i64, Vec<String>)>(connection)
                .await
        };
        let rows = self.pools.sequence(load).await?;
        let stretch = |(seq, types)| Stretch {
            end: behind(seq),
            types,
        };
        Ok(rows.into_iter().map(stretch).collect())
    }

    async fn read_after(&self, selection: &Selection, span: Span) -> Result<Chunk, StoreError> {
        self.pools
            .follow(async |connection| {
                read(connection, selection, span)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await
    }

    async fn backlog(&self, position: Position) -> Result<(u64, f64), StoreError> {
        self.pools
            .sequence(async |connection| backlog(connection, position).await)
            .await
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        self.pools.sequence(generation).await
    }

    async fn new_generation(&self) -> Result<i64, StoreError> {
        const NEXT: &str =
            "UPDATE log_generation SET generation = generation + 1, since = clock_timestamp()";
        let next = async |connection: &mut AsyncPgConnection| {
            diesel::sql_query(NEXT).execute(connection).await?;
            generation(connection).await
        };
        self.pools.sequence(next).await
    }

    async fn exchange(&self, peers: Arc<Peers>) -> Result<(), StoreError> {
        listen::exchange(&self.pools, &peers).await
    }
}

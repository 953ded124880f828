//! Pull streams; see [`StreamStore`].

use super::PostgresStore;
use super::by_index::by_index;
use super::prepared::Prepare;
use super::schema::{pix_messages, streams};
use super::stream_calls;
use super::transactions::in_transaction;
use crate::store::StoreError;
use crate::store::rows::TimeColumn;
use crate::store::streams::{
    Call, Called, Place, PlaceRecord, SessionRecord, StreamLevel, StreamRecord, StreamRules,
    StreamStore,
};
use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::time::Duration;

#[derive(QueryableByName)]
struct SecretRow {
    #[diesel(sql_type = Binary)]
    secret: Vec<u8>,
}

/// The cursor of a key, as a subquery for `$1` and `keys.key`.
macro_rules! cursor {
    () => {
        "coalesce((SELECT cursor FROM stream_answers WHERE stream = $1 AND key = keys.key \
         ORDER BY id DESC LIMIT 1), 0)"
    };
}

const READY: &str = concat!(
    "SELECT keys.key AS word FROM unnest($2::text[]) AS keys (key) \
     WHERE EXISTS (SELECT FROM stream_messages WHERE stream = $1 AND key = keys.key AND number > ",
    cursor!(),
    ") OR EXISTS (SELECT FROM stream_returned WHERE stream = $1 AND key = keys.key \
                  AND due <= statement_timestamp())"
);

#[derive(QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

/// A call deletes the rows that it replaces.
const ENDED: &str = "\
    SELECT poll.id FROM unnest($1::bigint[]) AS poll (id) \
    WHERE NOT EXISTS (SELECT FROM stream_answers WHERE id = poll.id)";

#[derive(QueryableByName)]
struct PollRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// From the sessions to their newest row each. Of the rows before, a snapshot that is held open may keep many.
const LAPSED: &str = "\
    SELECT DISTINCT s.stream, s.key FROM stream_sessions AS s CROSS JOIN LATERAL \
         (SELECT expires_at FROM stream_answers WHERE session = s.id ORDER BY id DESC LIMIT 1) AS a \
    WHERE s.stream = ANY ($1) AND a.expires_at <= statement_timestamp() LIMIT $2";

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Integer)]
    stream: i32,
    #[diesel(sql_type = Text)]
    key: String,
}

/// The keys of a stream one after the other, without a visit to each of their messages.
const KEYS: &str = "\
    WITH RECURSIVE messages (key) AS ( \
        (SELECT key FROM stream_messages WHERE stream = $1 AND key > $2 ORDER BY key LIMIT 1) \
        UNION ALL \
        SELECT (SELECT m.key FROM stream_messages AS m WHERE m.stream = $1 AND m.key > messages.key \
                ORDER BY m.key LIMIT 1) \
        FROM messages WHERE messages.key IS NOT NULL \
    ), keys AS ( \
        SELECT key FROM (SELECT key FROM messages WHERE key IS NOT NULL LIMIT $3) AS found \
        UNION SELECT key FROM stream_sessions WHERE stream = $1 AND key > $2 \
    ) \
    SELECT key AS word FROM keys ORDER BY key LIMIT $3";

/// Behind the cursor the numbers have no gap.
const LEVELS: &str = concat!(
    "SELECT keys.key, greatest(last.number - ",
    cursor!(),
    ", 0) + (SELECT count(*) FROM stream_returned WHERE stream = $1 AND key = keys.key) \
          + (SELECT count(*) FROM stream_parked WHERE stream = $1 AND key = keys.key) AS waiting, \
     extract(epoch FROM clock_timestamp() - first.since)::float8 AS oldest \
     FROM unnest($2::text[]) AS keys (key) \
     LEFT JOIN LATERAL (SELECT number FROM stream_messages WHERE stream = $1 AND key = keys.key AND number > ",
    cursor!(),
    " ORDER BY number DESC LIMIT 1) AS last ON true \
     LEFT JOIN LATERAL (SELECT since FROM stream_messages WHERE stream = $1 AND key = keys.key AND number > ",
    cursor!(),
    " ORDER BY number LIMIT 1) AS first ON true ORDER BY keys.key"
);

#[derive(QueryableByName)]
struct LevelRow {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    waiting: Option<i64>,
    #[diesel(sql_type = Nullable<diesel::sql_types::Double>)]
    oldest: Option<f64>,
}

const SESSIONS: &str = "\
    SELECT s.id, s.key, s.slot, s.started_at, a.expires_at, coalesce(cardinality(a.numbers), 0) AS leased \
    FROM stream_sessions AS s CROSS JOIN LATERAL \
         (SELECT expires_at, numbers FROM stream_answers WHERE session = s.id ORDER BY id DESC LIMIT 1) AS a \
    WHERE s.stream = $1 AND s.key = ANY ($2) ORDER BY s.key, s.slot";

#[derive(QueryableByName)]
struct SessionRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Integer)]
    slot: i32,
    #[diesel(sql_type = Timestamptz)]
    started_at: TimeColumn,
    #[diesel(sql_type = Timestamptz)]
    expires_at: TimeColumn,
    #[diesel(sql_type = Integer)]
    leased: i32,
}

/// Keys that are looked at together.
const PAGE: usize = 1_000;

/// How much a stream holds.
async fn level(connection: &mut AsyncPgConnection, stream: i32) -> QueryResult<StreamLevel> {
    by_index(connection).await?;
    let mut level = StreamLevel::default();
    let (mut after, mut oldest) = (String::new(), None::<f64>);
    loop {
        let keys = keys_behind(connection, stream, &after, PAGE).await?;
        let Some(last) = keys.last().cloned() else {
            break;
        };
        for row in levels(connection, stream, &keys).await? {
            level.waiting += row.waiting.unwrap_or(0).unsigned_abs();
            oldest = oldest.into_iter().chain(row.oldest).reduce(f64::max);
        }
        let sessions: Vec<SessionRow> = diesel::sql_query(SESSIONS)
            .bind::<Integer, _>(stream)
            .bind::<Array<Text>, _>(&keys)
            .prepared()
            .load(connection)
            .await?;
        level.sessions += sessions.len() as u64;
        let leased = sessions
            .iter()
            .map(|row| u64::from(row.leased.unsigned_abs()));
        level.leased += leased.sum::<u64>();
        after = last;
    }
    level.oldest_waiting =
        oldest.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    Ok(level)
}

async fn levels(
    connection: &mut AsyncPgConnection,
    stream: i32,
    keys: &[String],
) -> QueryResult<Vec<LevelRow>> {
    diesel::sql_query(LEVELS)
        .bind::<Integer, _>(stream)
        .bind::<Array<Text>, _>(keys)
        .prepared()
        .load(connection)
        .await
}

async fn keys_behind(
    connection: &mut AsyncPgConnection,
    stream: i32,
    after: &str,
    limit: usize,
) -> QueryResult<Vec<String>> {
    let rows: Vec<WordRow> = diesel::sql_query(KEYS)
        .bind::<Integer, _>(stream)
        .bind::<Text, _>(after)
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .prepared()
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.word).collect())
}

async fn records(
    connection: &mut AsyncPgConnection,
    stream: i32,
    keys: &[String],
) -> QueryResult<Vec<PlaceRecord>> {
    let levels = levels(connection, stream, keys).await?;
    let sessions: Vec<SessionRow> = diesel::sql_query(SESSIONS)
        .bind::<Integer, _>(stream)
        .bind::<Array<Text>, _>(keys)
        .prepared()
        .load(connection)
        .await?;
    let mut records: Vec<PlaceRecord> = levels
        .into_iter()
        .map(|level| PlaceRecord {
            key: level.key,
            waiting: level.waiting.unwrap_or(0).unsigned_abs(),
            sessions: Vec::new(),
        })
        .collect();
    for row in sessions {
        if let Some(record) = records.iter_mut().find(|record| record.key == row.key) {
            record.sessions.push(SessionRecord {
                id: row.id,
                slot: row.slot.unsigned_abs(),
                started_at: row.started_at.0,
                expires_at: row.expires_at.0,
                leased: row.leased.unsigned_abs(),
            });
        }
    }
    Ok(records)
}

#[async_trait]
impl StreamStore for PostgresStore {
    async fn declare_stream(&self, name: &str) -> Result<i32, StoreError> {
        let declare = async |connection: &mut AsyncPgConnection| {
            diesel::insert_into(streams::table)
                .values(streams::name.eq(name))
                .on_conflict_do_nothing()
                .execute(connection)
                .await?;
            let id = streams::table.filter(streams::name.eq(name));
            id.select(streams::id).first(connection).await
        };
        self.pools.read(declare).await
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<(i32, String, TimeColumn)> =
                streams::table.order(streams::name).load(connection).await?;
            let record = |(id, name, declared_at): (i32, String, TimeColumn)| StreamRecord {
                id,
                name,
                declared_at: declared_at.0,
            };
            Ok(rows.into_iter().map(record).collect())
        };
        self.pools.read(load).await
    }

    async fn stream_secret(&self) -> Result<[u8; 32], StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let row: SecretRow = diesel::sql_query("SELECT secret FROM stream_secret")
                .get_result(connection)
                .await?;
            Ok(row.secret)
        };
        crate::store::streams::secret(self.pools.read(load).await?)
    }

    async fn call(
        &self,
        place: &Place,
        call: &Call,
        rules: &StreamRules,
    ) -> Result<Called, StoreError> {
        let work = async |connection: &mut AsyncPgConnection| {
            stream_calls::call(connection, place, call, rules).await
        };
        let _turn = self.turns.take(place, self.pools.acquire_timeout()).await?;
        self.pools.collect(work).await
    }

    async fn pix_messages(&self, end_to_end_ids: &[String]) -> Result<u64, StoreError> {
        let count = async |connection: &mut AsyncPgConnection| {
            let count: i64 = pix_messages::table
                .filter(pix_messages::end_to_end_id.eq_any(end_to_end_ids))
                .count()
                .get_result(connection)
                .await?;
            Ok(count.unsigned_abs())
        };
        self.pools.collect(count).await
    }

    async fn ready_keys(&self, stream: i32, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<WordRow> = diesel::sql_query(READY)
                .bind::<Integer, _>(stream)
                .bind::<Array<Text>, _>(keys)
                .prepared()
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(|row| row.word).collect())
        };
        self.pools.collect(load).await
    }

    async fn ended_polls(&self, polls: &[i64]) -> Result<Vec<i64>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<PollRow> = diesel::sql_query(ENDED)
                .bind::<Array<BigInt>, _>(polls)
                .prepared()
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(|row| row.id).collect())
        };
        self.pools.collect(load).await
    }

    async fn lapsed_places(&self, streams: &[i32], limit: usize) -> Result<Vec<Place>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<PlaceRow> = diesel::sql_query(LAPSED)
                .bind::<Array<Integer>, _>(streams)
                .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
                .prepared()
                .load(connection)
                .await?;
            let place = |row: PlaceRow| Place {
                stream: row.stream,
                key: row.key,
            };
            Ok(rows.into_iter().map(place).collect())
        };
        self.pools.collect(load).await
    }

    async fn stream_level(&self, stream: i32) -> Result<StreamLevel, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            in_transaction(connection, async |connection| {
                level(connection, stream).await
            })
            .await
        };
        self.pools.read(load).await
    }

    async fn places(
        &self,
        stream: i32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PlaceRecord>, StoreError> {
        let after = after.unwrap_or_default();
        let load = async |connection: &mut AsyncPgConnection| {
            in_transaction(connection, async |connection| {
                by_index(connection).await?;
                let keys = keys_behind(connection, stream, after, limit).await?;
                records(connection, stream, &keys).await
            })
            .await
        };
        self.pools.read(load).await
    }

    async fn place(&self, place: &Place) -> Result<PlaceRecord, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            in_transaction(connection, async |connection| {
                by_index(connection).await?;
                let keys = [place.key.clone()];
                let mut records = records(connection, place.stream, &keys).await?;
                records.pop().ok_or(diesel::result::Error::NotFound)
            })
            .await
        };
        self.pools.read(load).await
    }
}

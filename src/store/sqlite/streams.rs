//! Pull streams; see [`StreamStore`].

use super::SqliteStore;
use super::runs::VARIABLES;
use super::schema::{
    pix_messages, stream_answers as answers, stream_messages as messages, stream_parked as parked,
    stream_returned as returned, stream_secret, stream_sessions as sessions, streams,
};
use super::{leases, stream_calls};
use crate::store::StoreError;
use crate::store::rows::TimeColumn;
use crate::store::streams::{
    Call, Called, Place, PlaceRecord, SessionRecord, StreamLevel, StreamRecord, StreamRules,
    StreamStore, secret,
};
use async_trait::async_trait;
use diesel::dsl::{exists, max};
use diesel::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn is_ready(connection: &mut SqliteConnection, place: &Place, now: i64) -> QueryResult<bool> {
    let cursor = stream_calls::cursor(connection, place.stream, &place.key)?;
    let fresh = messages::table
        .filter(messages::stream.eq(place.stream))
        .filter(messages::key.eq(&place.key))
        .filter(messages::number.gt(cursor));
    let due = returned::table
        .filter(returned::stream.eq(place.stream))
        .filter(returned::key.eq(&place.key))
        .filter(returned::due.le(now));
    Ok(
        diesel::select(exists(fresh)).get_result::<bool>(connection)?
            || diesel::select(exists(due)).get_result::<bool>(connection)?,
    )
}

/// The next key of a stream with messages or sessions.
fn next_key(
    connection: &mut SqliteConnection,
    stream: i32,
    after: &str,
) -> QueryResult<Option<String>> {
    let with_messages: Option<String> = messages::table
        .filter(messages::stream.eq(stream).and(messages::key.gt(after)))
        .order(messages::key)
        .select(messages::key)
        .first(connection)
        .optional()?;
    let with_sessions: Option<String> = sessions::table
        .filter(sessions::stream.eq(stream).and(sessions::key.gt(after)))
        .order(sessions::key)
        .select(sessions::key)
        .first(connection)
        .optional()?;
    Ok(with_messages.into_iter().chain(with_sessions).min())
}

/// A place, and since when its oldest message waits that was never handed out.
fn record(
    connection: &mut SqliteConnection,
    place: &Place,
) -> QueryResult<(PlaceRecord, Option<TimeColumn>)> {
    let cursor = stream_calls::cursor(connection, place.stream, &place.key)?;
    let fresh = messages::table
        .filter(messages::stream.eq(place.stream))
        .filter(messages::key.eq(&place.key))
        .filter(messages::number.gt(cursor));
    // Behind the cursor the numbers have no gap.
    let last: Option<i64> = fresh.select(max(messages::number)).first(connection)?;
    let oldest: Option<TimeColumn> = fresh
        .order(messages::number)
        .select(messages::since)
        .first(connection)
        .optional()?;
    let back: i64 = returned::table
        .filter(returned::stream.eq(place.stream))
        .filter(returned::key.eq(&place.key))
        .count()
        .get_result(connection)?;
    let behind: i64 = parked::table
        .filter(parked::stream.eq(place.stream))
        .filter(parked::key.eq(&place.key))
        .count()
        .get_result(connection)?;
    let fresh = last.map_or(0, |last| last.saturating_sub(cursor));
    let live = stream_calls::live(connection, place)?;
    let record = PlaceRecord {
        key: place.key.clone(),
        waiting: fresh
            .saturating_add(back)
            .saturating_add(behind)
            .unsigned_abs(),
        sessions: live
            .into_iter()
            .map(|(session, started_at)| SessionRecord {
                id: session.id,
                slot: session.slot,
                started_at: started_at.0,
                expires_at: session.expires_at,
                leased: u32::try_from(session.handed.len()).unwrap_or(u32::MAX),
            })
            .collect(),
    };
    Ok((record, oldest))
}

#[async_trait]
impl StreamStore for SqliteStore {
    async fn declare_stream(&self, name: &str) -> Result<i32, StoreError> {
        let name = name.to_owned();
        self.writer
            .ask(1, move |connection| {
                let now = leases::now(connection)?;
                diesel::insert_or_ignore_into(streams::table)
                    .values((streams::name.eq(&name), streams::declared_at.eq(now)))
                    .execute(connection)?;
                let id = streams::table.filter(streams::name.eq(&name));
                Ok(id.select(streams::id).first(connection)?)
            })
            .await
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, StoreError> {
        self.readers
            .read(|connection| {
                let rows: Vec<(i32, String, TimeColumn)> =
                    streams::table.order(streams::name).load(connection)?;
                let record = |(id, name, declared_at): (i32, String, TimeColumn)| StreamRecord {
                    id,
                    name,
                    declared_at: declared_at.0,
                };
                Ok(rows.into_iter().map(record).collect())
            })
            .await
    }

    async fn stream_secret(&self) -> Result<[u8; 32], StoreError> {
        let bytes = self
            .readers
            .read(|connection| {
                Ok(stream_secret::table
                    .select(stream_secret::secret)
                    .first(connection)?)
            })
            .await?;
        secret(bytes)
    }

    async fn call(
        &self,
        place: &Place,
        call: &Call,
        rules: &StreamRules,
    ) -> Result<Called, StoreError> {
        let (place, call, rules) = (place.clone(), call.clone(), rules.clone());
        self.writer
            .ask(10, move |connection| {
                stream_calls::call(connection, &place, &call, &rules)
            })
            .await
    }

    async fn pix_messages(&self, end_to_end_ids: &[String]) -> Result<u64, StoreError> {
        let ids = end_to_end_ids.to_vec();
        self.readers
            .read(move |connection| {
                let mut found = 0;
                for ids in ids.chunks(VARIABLES) {
                    let count: i64 = pix_messages::table
                        .filter(pix_messages::end_to_end_id.eq_any(ids))
                        .count()
                        .get_result(connection)?;
                    found += count.unsigned_abs();
                }
                Ok(found)
            })
            .await
    }

    async fn ready_keys(&self, stream: i32, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let keys = keys.to_vec();
        self.readers
            .read(move |connection| {
                let now = leases::now(connection)?;
                let mut ready = Vec::new();
                for key in keys {
                    let place = Place { stream, key };
                    if is_ready(connection, &place, now)? {
                        ready.push(place.key);
                    }
                }
                Ok(ready)
            })
            .await
    }

    async fn ended_polls(&self, polls: &[i64]) -> Result<Vec<i64>, StoreError> {
        let polls = polls.to_vec();
        self.readers
            .read(move |connection| {
                let mut ended: BTreeSet<i64> = polls.iter().copied().collect();
                // A call deletes the rows that it replaces.
                for part in polls.chunks(VARIABLES) {
                    let rows = answers::table.filter(answers::id.eq_any(part));
                    for row in rows.select(answers::id).load::<i64>(connection)? {
                        ended.remove(&row);
                    }
                }
                Ok(ended.into_iter().collect())
            })
            .await
    }

    async fn lapsed_places(&self, streams: &[i32], limit: usize) -> Result<Vec<Place>, StoreError> {
        let streams = streams.to_vec();
        self.readers
            .read(move |connection| {
                let now = leases::now(connection)?;
                let state = answers::session.eq(sessions::id.nullable());
                let rows: Vec<(i32, String)> = sessions::table
                    .inner_join(answers::table.on(state))
                    .filter(sessions::stream.eq_any(streams))
                    .filter(answers::expires_at.le(now))
                    .select((sessions::stream, sessions::key))
                    .distinct()
                    .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                    .load(connection)?;
                let place = |(stream, key)| Place { stream, key };
                Ok(rows.into_iter().map(place).collect())
            })
            .await
    }

    async fn stream_level(&self, stream: i32) -> Result<StreamLevel, StoreError> {
        self.readers
            .read(move |connection| {
                let now = leases::now(connection)?;
                let mut level = StreamLevel::default();
                let (mut key, mut since) = (next_key(connection, stream, "")?, None::<i64>);
                while let Some(next) = key {
                    let place = Place { stream, key: next };
                    let (record, oldest) = record(connection, &place)?;
                    level.waiting += record.waiting;
                    level.sessions += record.sessions.len() as u64;
                    let leased = record.sessions.iter().map(|one| u64::from(one.leased));
                    level.leased += leased.sum::<u64>();
                    let oldest = oldest.map(|oldest| oldest.0.timestamp_micros());
                    since = since.into_iter().chain(oldest).min();
                    key = next_key(connection, stream, &place.key)?;
                }
                level.oldest_waiting = since.map(|since| {
                    Duration::from_micros(now.saturating_sub(since).max(0).unsigned_abs())
                });
                Ok(level)
            })
            .await
    }

    async fn places(
        &self,
        stream: i32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PlaceRecord>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.readers
            .read(move |connection| {
                let mut places = Vec::new();
                let mut key = next_key(connection, stream, &after)?;
                while let Some(next) = key.filter(|_| places.len() < limit) {
                    let place = Place { stream, key: next };
                    places.push(record(connection, &place)?.0);
                    key = next_key(connection, stream, &place.key)?;
                }
                Ok(places)
            })
            .await
    }

    async fn place(&self, place: &Place) -> Result<PlaceRecord, StoreError> {
        let place = place.clone();
        self.readers
            .read(move |connection| Ok(record(connection, &place)?.0))
            .await
    }
}

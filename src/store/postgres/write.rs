//! The insert: a whole batch in one prepared statement, which is one transaction.

use super::leases;
use super::partitions::{self, Partitions};
use crate::event::{Event, Lane, id};
use crate::store::awaited::AwaitedTypes;
use crate::store::error::is_missing_partition;
use crate::store::{ErrorKind, StoreError, times};
use chrono::{DateTime, NaiveDate, Utc};
use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Rows go in sorted by `event_id`, so that two batches that share ids cannot deadlock; their `id`s are
/// one block, given out by the place in the batch, so that the log keeps its order. What is new is
/// announced in `log_arrivals`, from where the block gets its number; the sets of days and types are
/// those of the whole batch, since to compute them here would cost more than to say too much. The
/// transaction has its number before it draws a block, for the numbering to know who may still write
/// below a block: see `eclusa_log_horizon`.
/// The text of a payload is parsed by PostgreSQL alone. The answer is one row: null when every row
/// was new, as nearly always, else the ids of those that were. A row of the answer for each row of
/// the batch would cost both sides more than the question.
const INSERT: &str = "\
    WITH drawn AS MATERIALIZED ( \
        SELECT nextval('log_blocks') AS block WHERE pg_current_xact_id() IS NOT NULL \
    ), inserted AS ( \
    INSERT INTO user_interactions \
        (id, \"timestamp\", received_at, event_id, bucket, processed, source, producer, event_type, \
         user_id, session_id, original_id, event_data, schema_version) \
    SELECT drawn.block << 12 | t.place, t.occurred_at, t.received_at, t.event_id, t.bucket, \
           t.event_type <> ALL ($16::text[]), t.source, t.producer, t.event_type, t.user_id, \
           t.session_id, t.original_id, t.event_data::jsonb, t.schema_version \
    FROM drawn, unnest($2::int4[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::date[], \
                       $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], \
                       $12::text[], $13::text[], $17::int2[]) \
         AS t (place, occurred_at, received_at, event_id, bucket, source, producer, event_type, \
               user_id, session_id, original_id, event_data, schema_version) \
    ON CONFLICT DO NOTHING \
    RETURNING event_id \
    ), counted AS ( \
        SELECT count(*)::int4 AS events FROM inserted \
    ), arrived AS ( \
        INSERT INTO log_arrivals (block, events, buckets, types) \
        SELECT drawn.block, counted.events, $14::date[], $15::text[] FROM drawn, counted \
        WHERE counted.events > 0 \
    ) \
    SELECT CASE WHEN counted.events < $1::int4 \
                THEN (SELECT coalesce(array_agg(event_id), '{}') FROM inserted) END \
    FROM counted";

/// The insert under the lane's lock, which is held until the commit; no block is drawn before the lock is
/// held. The lock is part of the statement: a process stopped between two statements would keep it.
static INSERT_IN_LANE: LazyLock<String> = LazyLock::new(|| {
    INSERT
        .replacen(
            "WITH drawn",
            "WITH lane AS MATERIALIZED (SELECT pg_advisory_xact_lock($18)), drawn",
            1,
        )
        .replacen("AS block WHERE", "AS block FROM lane WHERE", 1)
});

/// The same under a lease too. Who takes the lease waits for the commit, as [`leases::FENCE`] says; the statement waits for
/// the lock of the lane first, so that it reads a token that is not replaced meanwhile.
static INSERT_UNDER_LEASE: LazyLock<String> = LazyLock::new(|| {
    INSERT_IN_LANE
        .replacen(
            "drawn AS MATERIALIZED",
            "fence AS MATERIALIZED ( \
                SELECT FROM lane, leases WHERE name = $19 AND token = $20 FOR KEY SHARE OF leases \
             ), drawn AS MATERIALIZED",
            1,
        )
        .replacen("FROM lane WHERE", "FROM fence WHERE", 1)
});

/// Which rows an insert has written.
pub(super) enum Inserted {
    All,
    /// Those of these ids; the log has had the others.
    Some(HashSet<Uuid>),
    /// None: the lease of the lane is lost.
    Lost,
}

/// The columns of a batch, sorted by id. Texts are borrowed from the events.
struct Columns<'a> {
    count: i32,
    place: Vec<i32>,
    occurred_at: Vec<DateTime<Utc>>,
    received_at: Vec<DateTime<Utc>>,
    event_id: Vec<Uuid>,
    bucket: Vec<NaiveDate>,
    source: Vec<&'a str>,
    producer: Vec<&'a str>,
    event_type: Vec<&'a str>,
    user_id: Vec<Option<&'a str>>,
    session_id: Vec<Option<&'a str>>,
    original_id: Vec<Option<&'a str>>,
    event_data: Vec<&'a str>,
    schema_version: Vec<Option<i16>>,
    buckets: Vec<NaiveDate>,
    types: Vec<&'a str>,
    /// Those of the types that a reaction is declared for.
    awaited: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a [Event], awaited: &AwaitedTypes) -> Self {
        let mut sorted: Vec<(i32, &Event)> = (0..).zip(rows).collect();
        // Stable: of two rows with the same id the first one stays ahead, and wins.
        sorted.sort_by_key(|(_, event)| event.event_id);
        let buckets: BTreeSet<NaiveDate> =
            rows.iter().map(|row| id::bucket(&row.event_id)).collect();
        let types: BTreeSet<&str> = rows.iter().map(|row| row.event_type.as_str()).collect();
        Self {
            count: i32::try_from(sorted.len()).unwrap_or(i32::MAX),
            place: sorted.iter().map(|(place, _)| *place).collect(),
            occurred_at: column(&sorted, |event| times::floor(event.occurred_at())),
            received_at: column(&sorted, |event| times::floor(event.received_at)),
            event_id: column(&sorted, |event| event.event_id),
            bucket: column(&sorted, |event| id::bucket(&event.event_id)),
            source: column(&sorted, |event| event.source.as_str()),
            producer: column(&sorted, |event| &*event.producer),
            event_type: column(&sorted, |event| event.event_type.as_str()),
            user_id: column(&sorted, |event| event.user_id.as_deref()),
            session_id: column(&sorted, |event| event.session_id.as_deref()),
            original_id: column(&sorted, |event| event.original_id.as_deref()),
            event_data: column(&sorted, |event| event.event_data.get()),
            schema_version: column(&sorted, |event| event.schema_version),
            buckets: buckets.into_iter().collect(),
            awaited: awaited.among(types.iter().copied()),
            types: types.into_iter().collect(),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.count,
            &self.place,
            &self.occurred_at,
            &self.received_at,
            &self.event_id,
            &self.bucket,
            &self.source,
            &self.producer,
            &self.event_type,
            &self.user_id,
            &self.session_id,
            &self.original_id,
            &self.event_data,
            &self.buckets,
            &self.types,
            &self.awaited,
            &self.schema_version,
        ]
    }
}

fn column<'a, T>(sorted: &[(i32, &'a Event)], field: impl Fn(&'a Event) -> T) -> Vec<T> {
    sorted.iter().map(|(_, event)| field(event)).collect()
}

/// Inserts the rows; makes partitions where they are missing.
pub(super) async fn insert(
    client: &mut deadpool_postgres::Client,
    partitions: &Partitions,
    awaited: &AwaitedTypes,
    rows: &[Event],
    lane: Option<&Lane>,
) -> Result<Inserted, StoreError> {
    let columns = Columns::of(rows, awaited);
    if let Err(error) = partitions.ensure_ahead(client, Utc::now()).await {
        // The batch may not need them; if it does, the write fails below.
        tracing::warn!(%error, "could not make the partitions of the coming days");
    }
    partitions
        .ensure(client, columns.buckets.iter().copied())
        .await?;
    match execute(client, &columns, lane).await {
        Err(error) if is_missing_partition(&error) => {
            // Dropped since we last looked.
            partitions.forget();
            partitions
                .ensure(client, columns.buckets.iter().copied())
                .await?;
            execute(client, &columns, lane).await.map_err(|error| {
                if is_missing_partition(&error) {
                    let message = "a partition of the event log was dropped while it was needed";
                    StoreError::new(ErrorKind::Transient, message).with_source(error)
                } else {
                    error.into()
                }
            })
        }
        result => Ok(result?),
    }
}

async fn execute(
    client: &deadpool_postgres::Client,
    columns: &Columns<'_>,
    lane: Option<&Lane>,
) -> Result<Inserted, tokio_postgres::Error> {
    let mut parameters = columns.parameters().to_vec();
    let fence = lane.and_then(|lane| lane.fence.as_ref());
    let text = match (lane, fence) {
        (None, _) => INSERT,
        (Some(_), None) => &INSERT_IN_LANE,
        (Some(_), Some(_)) => &INSERT_UNDER_LEASE,
    };
    if let Some(lane) = lane {
        parameters.push(&lane.key);
    }
    if let Some(fence) = fence {
        parameters.extend([&fence.lease as &(dyn ToSql + Sync), &fence.token]);
    }
    let statement = client.prepare_cached(text).await?;
    let answer = client.query_one(&statement, &parameters).await?;
    let new: Option<Vec<Uuid>> = answer.try_get(0)?;
    match (new, fence) {
        (None, _) => Ok(Inserted::All),
        // The log has all the rows, or the lease is lost; a token that was replaced does not come again.
        (Some(new), Some(fence)) if new.is_empty() && !leases::is_held(client, fence).await? => {
            Ok(Inserted::Lost)
        }
        (Some(new), _) => Ok(Inserted::Some(new.into_iter().collect())),
    }
}

/// Columns of the log that an insert leaves empty though they must have a value. With one of them no row
/// can be written; a generated column, or one that a trigger may fill, is left out.
const UNFILLED: &str = "\
    SELECT string_agg(attname, ', ') FROM pg_attribute \
    WHERE attrelid = 'user_interactions'::regclass AND attnum > 0 AND NOT attisdropped \
      AND attnotnull AND NOT atthasdef AND attidentity = '' \
      AND attname NOT IN ('id', 'timestamp', 'received_at', 'event_id', 'bucket', \
                          'processed', 'source', 'producer', 'event_type', 'user_id', 'session_id', \
                          'original_id', 'event_data') \
      AND NOT EXISTS (SELECT FROM pg_trigger \
                      WHERE tgrelid = 'user_interactions'::regclass AND NOT tgisinternal)";

/// The error of a row that lacks a value, with the kind that it has when no event fills the column.
pub(super) async fn explained(client: &deadpool_postgres::Client, error: StoreError) -> StoreError {
    if !error.is_missing_value() {
        return error;
    }
    let row = client.query_one(UNFILLED, &[]).await;
    match row.and_then(|row| row.try_get::<_, Option<String>>(0)) {
        Ok(Some(columns)) => error.of_operator(format!(
            "user_interactions has columns that must have a value and that no event fills: {columns}; \
             give them a default or drop NOT NULL"
        )),
        _ => error,
    }
}

/// Writes rows like these and takes them back.
pub(super) async fn probe(
    client: &mut deadpool_postgres::Client,
    partitions: &Partitions,
    rows: &[Event],
    lane: Option<i64>,
) -> Result<(), StoreError> {
    // The insert and its end are one message: a process that is stopped behind it holds no lock. The
    // transaction left over is empty.
    let transaction = client.transaction().await?;
    let probed = transaction
        .batch_execute(&probe_statements(rows, lane))
        .await;
    transaction.rollback().await?;
    match probed {
        Ok(()) => Ok(()),
        Err(error) if is_missing_partition(&error) => {
            // The next write makes it.
            partitions.forget();
            let message = "a partition of the event log is missing";
            Err(StoreError::new(ErrorKind::Transient, message))
        }
        Err(error) => Err(explained(client, error.into()).await),
    }
}

/// The statements of a write probe: a row of the log for each day of `rows`, or of no day, behind
/// the lock of the lane, and the end of their transaction. A lock on the log, on a partition or of
/// the lane stops them as it stops the rows. Types are as in [`INSERT`].
fn probe_statements(rows: &[Event], lane: Option<i64>) -> String {
    let mut days: BTreeSet<NaiveDate> = rows.iter().map(|row| id::bucket(&row.event_id)).collect();
    if days.is_empty() {
        days.insert(id::UNORDERED);
    }
    let days: Vec<String> = days.into_iter().map(partitions::literal).collect();
    let lane = lane.map_or_else(String::new, |lane| {
        format!("SELECT pg_advisory_xact_lock({lane}); ")
    });
    format!(
        "{lane}INSERT INTO user_interactions \
            (id, event_id, bucket, processed, source, producer, event_type) \
         SELECT 0, gen_random_uuid(), bucket, true, 'write_probe'::text, 'eclusa'::text, \
                'eclusa.write_probe'::text \
         FROM unnest('{{{}}}'::date[]) AS bucket; \
         ROLLBACK AND CHAIN",
        days.join(",")
    )
}

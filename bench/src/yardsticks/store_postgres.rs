//! The bare store: the plainest statement that inserts a batch into the final table, on as many
//! connections as Eclusa writes with, and nothing else.
//!
//! The statement is the bench's own, not Eclusa's: no `RETURNING`, no drawing of sequence numbers
//! in the batch's order, rows as they come. All texts but the ids are made beforehand, so the client
//! costs next to nothing.

use crate::body;
use crate::body::{Ids, Payload};
use crate::database::{Database, beside};
use chrono::{DateTime, NaiveDate, Utc};
use indicatif::ProgressBar;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

/// Rows in a batch. More gain nothing on a machine of two cores.
pub const BATCH: usize = 500;
/// Connections. Two keep a machine of two cores busy.
pub const CONNECTIONS: usize = 2;
/// Batches whose texts are made beforehand.
const PREPARED: u64 = 20;

const INSERT: &str = "\
    INSERT INTO user_interactions \
        (id, \"timestamp\", received_at, event_id, bucket, processed, source, producer, event_type, \
         user_id, session_id, event_data) \
    SELECT nextval('log_blocks') << 12, t.at, t.at, t.event_id, t.bucket, true, 'http', 'default', 'bench.event', t.user_id, \
           t.session_id, t.event_data::jsonb \
    FROM unnest($1::timestamptz[], $2::uuid[], $3::date[], $4::text[], $5::text[], $6::text[]) \
         AS t (at, event_id, bucket, user_id, session_id, event_data) \
    ON CONFLICT DO NOTHING";

/// The texts of one batch.
struct Texts {
    users: Vec<String>,
    sessions: Vec<String>,
    payloads: Vec<String>,
}

impl Texts {
    fn new(rows: usize, from: u64, event_bytes: usize) -> Self {
        let numbers = from..from + rows as u64;
        let (users, sessions) = numbers.clone().map(body::user_and_session).unzip();
        let mut payload = Payload::new(event_bytes);
        let payloads = numbers.map(|n| payload.of(n).to_owned()).collect();
        Self {
            users,
            sessions,
            payloads,
        }
    }
}

/// One connection that writes batches.
struct Writer {
    client: Client,
    insert: Statement,
    texts: Vec<Texts>,
    ids: Ids,
    batch: usize,
}

impl Writer {
    async fn new(
        client: Client,
        number: u16,
        rows: usize,
        event_bytes: usize,
    ) -> anyhow::Result<Self> {
        let insert = client.prepare(INSERT).await?;
        let texts = (0..PREPARED)
            .map(|n| Texts::new(rows, n * rows as u64, event_bytes))
            .collect();
        Ok(Self {
            client,
            insert,
            texts,
            ids: Ids::new(number),
            batch: 0,
        })
    }

    async fn write(&mut self) -> anyhow::Result<u64> {
        let Some(texts) = self.texts.get(self.batch % self.texts.len().max(1)) else {
            return Ok(0);
        };
        self.batch += 1;
        let rows = texts.users.len();
        let now: Vec<DateTime<Utc>> = vec![Utc::now(); rows];
        let ids: Vec<Uuid> = (0..rows).map(|_| self.ids.make().0).collect();
        let buckets: Vec<NaiveDate> = ids.iter().map(day).collect();
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &now,
            &ids,
            &buckets,
            &texts.users,
            &texts.sessions,
            &texts.payloads,
        ];
        Ok(self.client.execute(&self.insert, &parameters).await?)
    }
}

/// How many rows to write: as many as go into the time, as many as become due, or a number.
enum Until<'a> {
    Elapsed(Instant),
    Due(&'a Semaphore),
    Rows(u64, &'a ProgressBar),
}

/// Writes for this long and says how many rows a second were committed.
///
/// # Errors
/// PostgreSQL's.
pub async fn measure(
    database: &Database,
    event_bytes: usize,
    duration: Duration,
) -> anyhow::Result<f64> {
    let written = AtomicU64::new(0);
    let began = Instant::now();
    let one = |number| {
        let until = Until::Elapsed(began + duration);
        connection(database, number, BATCH, event_bytes, until, &written)
    };
    futures::try_join!(one(0), one(1))?;
    Ok(written.into_inner() as f64 / began.elapsed().as_secs_f64())
}

/// Writes what becomes due, until the semaphore is closed.
///
/// # Errors
/// PostgreSQL's.
pub async fn follow(
    database: &Database,
    event_bytes: usize,
    due: &Semaphore,
) -> anyhow::Result<()> {
    let written = AtomicU64::new(0);
    let one = |number| {
        connection(
            database,
            number,
            BATCH,
            event_bytes,
            Until::Due(due),
            &written,
        )
    };
    futures::try_join!(one(2), one(3))?;
    Ok(())
}

/// Fills the log with this many rows more.
///
/// # Errors
/// PostgreSQL's.
pub async fn fill(
    database: &Database,
    event_bytes: usize,
    rows: u64,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let written = AtomicU64::new(0);
    let one = |number| {
        let until = Until::Rows(rows, bar);
        connection(database, number, BATCH, event_bytes, until, &written)
    };
    futures::try_join!(one(4), one(5))?;
    Ok(())
}

/// The day of an id of version 7, whose partition the row belongs into.
fn day(id: &Uuid) -> NaiveDate {
    let (seconds, _) = id.get_timestamp().map_or((0, 0), |at| at.to_unix());
    let seconds = i64::try_from(seconds).unwrap_or_default();
    DateTime::from_timestamp(seconds, 0).map_or(NaiveDate::MIN, |at| at.date_naive())
}

async fn connection(
    database: &Database,
    number: u16,
    rows: usize,
    event_bytes: usize,
    until: Until<'_>,
    written: &AtomicU64,
) -> anyhow::Result<()> {
    let (client, connection) = database.connect().await?;
    let work = async {
        let mut writer = Writer::new(client, number, rows, event_bytes).await?;
        loop {
            match &until {
                Until::Elapsed(end) if Instant::now() >= *end => break,
                Until::Elapsed(_) => {}
                Until::Rows(enough, bar) => {
                    let so_far = written.load(Ordering::Relaxed);
                    bar.set_position(so_far);
                    if so_far >= *enough {
                        break;
                    }
                }
                Until::Due(due) => match due.acquire_many(u32::try_from(rows).unwrap_or(1)).await {
                    Ok(permit) => permit.forget(),
                    Err(_) => break,
                },
            }
            written.fetch_add(writer.write().await?, Ordering::Relaxed);
        }
        Ok(())
    };
    beside(connection, work).await
}

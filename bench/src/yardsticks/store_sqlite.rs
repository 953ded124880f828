//! The bare SQLite: one caller that inserts batches of 1000 rows into the final table and waits for
//! each commit, `synchronous = FULL`, without actors, HTTP or another connection.

use crate::body;
use crate::body::{Ids, Payload};
use diesel::connection::SimpleConnection as _;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::Sqlite;
use diesel::{Connection as _, QueryResult, QueryableByName, RunQueryDsl, SqliteConnection};
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows in a batch.
pub const BATCH: usize = 1_000;
/// Rows in a statement. Fewer cost more calls, more gain nothing.
const ROWS: usize = 20;

struct Row {
    event_id: Uuid,
    user: String,
    session: String,
    payload: String,
}

/// An insert of [`ROWS`] rows, prepared once.
struct Insert<'a> {
    rows: &'a [Row; ROWS],
    micros: i64,
}

impl QueryId for Insert<'_> {
    type QueryId = Insert<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO user_interactions (event_id, \"timestamp\", received_at, user_id, \
             session_id, event_data, processed, source, producer, event_type) VALUES ",
        );
        for (place, row) in self.rows.iter().enumerate() {
            out.push_sql(if place == 0 { "(" } else { ", (" });
            out.push_bind_param::<Binary, _>(row.event_id.as_bytes().as_slice())?;
            for _ in 0..2 {
                out.push_sql(", ");
                out.push_bind_param::<BigInt, _>(&self.micros)?;
            }
            for text in [&row.user, &row.session, &row.payload] {
                out.push_sql(", ");
                out.push_bind_param::<Text, _>(text.as_str())?;
            }
            out.push_sql(", TRUE, 'http', 'default', 'bench.event')");
        }
        out.push_sql(" ON CONFLICT (event_id) DO NOTHING");
        Ok(())
    }
}

impl RunQueryDsl<SqliteConnection> for Insert<'_> {}

/// Writes for this long into a file that has the tables, and says how many rows a second were
/// committed.
///
/// # Errors
/// SQLite's.
pub async fn measure(file: &Path, event_bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    let file = file.to_owned();
    blocking(move || write(&file, event_bytes, duration)).await
}

fn write(file: &Path, event_bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    let mut connection = open(file)?;
    connection.batch_execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;")?;
    let (mut ids, mut payload) = (Ids::new(0), Payload::new(event_bytes));
    let mut row = || {
        let (event_id, number) = ids.make();
        let (user, session) = body::user_and_session(number);
        Row {
            event_id,
            user,
            session,
            payload: payload.of(number).to_owned(),
        }
    };
    let mut written = 0;
    let mut busy = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < duration {
        let chunks: Vec<[Row; ROWS]> = (0..BATCH / ROWS)
            .map(|_| std::array::from_fn(|_| row()))
            .collect();
        let micros = chrono::Utc::now().timestamp_micros();
        // What it takes to make the rows is not SQLite's.
        let writing = Instant::now();
        written += connection.immediate_transaction(|connection| {
            let mut inserted = 0;
            for rows in &chunks {
                inserted += Insert { rows, micros }.execute(connection)?;
            }
            diesel::QueryResult::Ok(inserted)
        })?;
        busy += writing.elapsed();
    }
    Ok(written as f64 / busy.as_secs_f64().max(0.000_001))
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = Binary)]
    event_id: Vec<u8>,
}

/// Ids of all events in a file, and with an id twice where it is stored twice.
///
/// # Errors
/// SQLite's.
pub async fn ids(file: &Path) -> anyhow::Result<Vec<Uuid>> {
    let file = file.to_owned();
    blocking(move || {
        let rows: Vec<Stored> =
            diesel::sql_query("SELECT event_id FROM user_interactions").load(&mut open(&file)?)?;
        let ids = rows.iter().map(|row| Uuid::from_slice(&row.event_id));
        Ok(ids.collect::<Result<_, _>>()?)
    })
    .await
}

fn open(file: &Path) -> anyhow::Result<SqliteConnection> {
    let mut connection = SqliteConnection::establish(&file.display().to_string())?;
    connection.batch_execute("PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

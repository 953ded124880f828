//! The bare SQLite: one caller that hands a batch of 1000 rows to the store and waits for the
//! commit, `synchronous = FULL`, without actors, HTTP or anybody else.
//!
//! The insert is Eclusa's own (`store::sqlite`): there is no plainer one than a prepared statement
//! per few rows inside one transaction, and the thread it runs on has nothing else to do.

use crate::bench::body::Ids;
use crate::bench::rows;
use crate::store::EventStore;
use crate::store::sqlite::{SqliteOptions, SqliteStore, migrate};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows in a batch.
pub const BATCH: usize = 1_000;

/// Writes for this long into a new file and says how many rows a second were committed.
///
/// # Errors
/// SQLite's.
pub async fn measure(file: &Path, event_bytes: usize, duration: Duration) -> anyhow::Result<f64> {
    migrate(file).await?;
    let store = SqliteStore::open(&SqliteOptions::new(file)).await?;
    let mut ids = Ids::new(0);
    let mut written = 0;
    let mut busy = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < duration {
        let batch = rows::batch(&mut ids, BATCH, event_bytes)?;
        // What it takes to make the events is not SQLite's.
        let writing = Instant::now();
        written += store.write(batch).await?.len();
        busy += writing.elapsed();
    }
    Ok(written as f64 / busy.as_secs_f64().max(0.000_001))
}

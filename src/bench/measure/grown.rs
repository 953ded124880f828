//! Whether a batch takes longer when the log is large.

use super::Measure;
use crate::bench::body::Ids;
use crate::bench::figures::{Figures, median};
use crate::bench::rows;
use crate::bench::yardsticks::store_postgres;
use crate::store::EventStore;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use tokio::time::Instant;

/// Rows of a batch.
const BATCH: usize = 500;
/// Batches that are timed.
const BATCHES: usize = 200;
/// Rows that the log grows by.
const ROWS: u64 = 10_000_000;

impl Measure<'_> {
    /// Eclusa's own insert of one batch, one after the other: in an empty log, and in one that has
    /// grown. All rows are of one day, so they lie in one partition.
    pub(super) async fn grown(&self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let database = self.place.database()?;
        let event_bytes = self.plan.event_bytes;
        let time_batches = async || {
            let store = PostgresStore::connect(&PostgresOptions::new(&database.url)).await?;
            let mut ids = Ids::new(9);
            let mut times = Vec::with_capacity(BATCHES);
            for _ in 0..BATCHES {
                let batch = rows::batch(&mut ids, BATCH, event_bytes)?;
                let began = Instant::now();
                store.write(batch).await?;
                times.push(began.elapsed().as_secs_f64() * 1_000.0);
            }
            anyhow::Ok(median(times).unwrap_or(f64::NAN))
        };
        database.empty().await?;
        figures.set("empty_batch_ms", time_batches().await?);
        let rows = self.plan.events.unwrap_or(ROWS);
        let bar = self.progress.bar("grown: filling the log", rows);
        store_postgres::fill(&database.url, event_bytes, rows, &bar).await?;
        database.checkpoint().await;
        figures.set("grown_batch_ms", time_batches().await?);
        database.empty().await?;
        Ok(figures)
    }
}

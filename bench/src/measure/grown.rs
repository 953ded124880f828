//! Whether a batch takes longer when the log is large.

use super::Measure;
use crate::body::{Body, Ids};
use crate::child::Child;
use crate::figures::{Figures, median};
use crate::plan::Scenario;
use crate::yardsticks::store_postgres;
use anyhow::bail;

/// Events of a request, which a server without load writes as one batch.
const BATCH: usize = 500;
/// Batches that are timed.
const BATCHES: usize = 200;
/// Rows that the log grows by.
const ROWS: u64 = 10_000_000;

impl Measure<'_> {
    /// The server's writes of one batch, one after the other: in an empty log, and in one that has
    /// grown. All rows are of one day, so they lie in one partition.
    pub(super) async fn grown(&self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let database = self.place.database()?;
        let server = self.place.under_test(self.plan, Scenario::Grown).await?;
        let child = server.start().await?;
        figures.set("empty_batch_ms", self.time_batches(&child, 9).await?);
        let rows = self.plan.events.unwrap_or(ROWS);
        let bar = self.progress.bar("grown: filling the log", rows);
        store_postgres::fill(database, self.plan.event_bytes, rows, &bar).await?;
        database.checkpoint().await;
        figures.set("grown_batch_ms", self.time_batches(&child, 10).await?);
        drop(child);
        database.empty().await?;
        Ok(figures)
    }

    /// The median of what the server says that its writes of a batch took.
    async fn time_batches(&self, child: &Child, source: u16) -> anyhow::Result<f64> {
        let body = Body::new(BATCH, self.plan.event_bytes, "");
        let head = child.target.post_head(body.bytes().len());
        let mut request = body.behind(head.as_bytes());
        let mut connection = child.target.connect().await?;
        let (mut ids, mut made) = (Ids::new(source), Vec::new());
        let mut times = Vec::with_capacity(BATCHES);
        let writes = async || {
            child
                .metrics([
                    "eclusa_store_write_seconds_sum",
                    "eclusa_events_stored_total",
                ])
                .await
        };
        let mut before = writes().await?;
        for _ in 0..BATCHES {
            made.clear();
            request.renew(&mut ids, &mut made);
            let answer = connection.exchange(request.bytes()).await?;
            if answer.status != 202 {
                bail!("the server answers {} to a batch", answer.status);
            }
            let after = writes().await?;
            let ([seconds, stored], [seconds_before, stored_before]) = (after, before);
            // A batch that was written in two is counted as one.
            let batches = (stored - stored_before) / BATCH as f64;
            if batches > 0.0 {
                times.push((seconds - seconds_before) * 1_000.0 / batches);
            }
            before = after;
        }
        Ok(median(times).unwrap_or(f64::NAN))
    }
}

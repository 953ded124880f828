//! Messages of a foreign publisher that wait on the queue when the server starts.

use super::settle::{Stored, processor_us, settle};
use super::{MB, Measure};
use crate::figures::Figures;
use crate::load::Sent;
use crate::plan::Scenario;
use crate::verify::Verdict;
use crate::yardsticks::broker;
use tokio::time::Instant;

impl Measure<'_> {
    /// Messages that wait when the server starts. The rate is that of the nine tenths in the middle,
    /// so that neither the start nor the wait of the last batch counts.
    pub(super) async fn drain(&self) -> anyhow::Result<(Figures, Verdict)> {
        let plan = self.plan;
        let mut figures = Figures::default();
        let server = self.place.under_test(plan, Scenario::Drain).await?;
        // It declares its queues.
        drop(server.start().await?);
        let messages = plan.waiting();
        let bar = self.progress.bar("drain: messages that wait", messages);
        let queue = self.place.queues.work();
        let ids = broker::preload(
            &self.place.servers.broker,
            &queue,
            messages,
            plan.event_bytes,
            &bar,
        )
        .await?;
        let mut sent = Sent::nothing()?;
        sent.accepted = ids;
        let child = server.spawn().await?;
        let (began, usage) = (Instant::now(), child.usage());
        let _bar = self.progress.busy("drain");
        let mut trace = Stored::default();
        let stored = settle(&child, &sent, &mut trace).await?;
        let events = messages as f64;
        let whole = events / (stored - began).as_secs_f64();
        figures.set("rate", trace.rate(0.0, events).unwrap_or(whole));
        figures.set("processor_us", processor_us(usage, child.usage(), events));
        if let Some(usage) = child.usage() {
            figures.set("peak_mb", usage.peak as f64 / MB);
        }
        drop(child);
        let stored = self.place.stored(&server).await?;
        Ok((figures, Verdict::of(sent.accepted, stored, &[], 0)))
    }
}

//! Messages of a foreign publisher that wait on the queue when the server starts.

use super::settle::{processor_us, settle};
use super::{MB, Measure};
use crate::bench::figures::Figures;
use crate::bench::load::Sent;
use crate::bench::plan::Scenario;
use crate::bench::verify::Verdict;
use crate::bench::yardsticks::broker;
use tokio::time::Instant;

impl Measure<'_> {
    /// Messages that wait when the server starts. The clock runs from the moment it listens to the
    /// moment the last one is stored.
    pub(super) async fn drain(&self) -> anyhow::Result<(Figures, Verdict)> {
        let plan = self.plan;
        let mut figures = Figures::default();
        let server = self.place.under_test(plan, Scenario::Drain).await?;
        // It declares its queues.
        drop(server.start().await?);
        let messages = plan.waiting();
        let bar = self.progress.bar("drain: messages that wait", messages);
        let queue = self.place.queues.work();
        let ids =
            broker::preload(&server.settings, &queue, messages, plan.event_bytes, &bar).await?;
        let mut sent = Sent::nothing()?;
        sent.accepted = ids;
        let child = server.spawn().await?;
        let (began, usage) = (Instant::now(), child.usage());
        let _bar = self.progress.busy("drain");
        let stored = settle(&child, &sent).await?;
        let events = messages as f64;
        figures.set("rate", events / (stored - began).as_secs_f64());
        figures.set("processor_us", processor_us(usage, child.usage(), events));
        if let Some(usage) = child.usage() {
            figures.set("peak_mb", usage.peak as f64 / MB);
        }
        drop(child);
        let stored = self.place.stored(&server).await?;
        Ok((figures, Verdict::of(sent.accepted, stored, &[], 0)))
    }
}

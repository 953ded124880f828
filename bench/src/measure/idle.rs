//! What a server costs that has nothing to do.

use super::{MB, Measure};
use crate::figures::Figures;
use crate::plan::Scenario;

impl Measure<'_> {
    /// A start on a store that is migrated already, and then nothing.
    pub(super) async fn idle(&self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let server = self.place.under_test(self.plan, Scenario::Idle).await?;
        drop(server.start().await?);
        let child = server.spawn().await?;
        let ready = child.ready().await?;
        figures.set("start_ms", ready.as_secs_f64() * 1_000.0);
        let _bar = self.progress.busy("idle");
        tokio::time::sleep(self.plan.duration).await;
        if let Some(usage) = child.usage() {
            figures.set("resident_mb", usage.resident as f64 / MB);
            figures.set("peak_mb", usage.peak as f64 / MB);
        }
        Ok(figures)
    }
}

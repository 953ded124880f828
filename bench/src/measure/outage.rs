//! Load that goes on while the store is away, and what has gathered when it comes back.

use super::settle::{Stored, settle};
use super::{MB, Measure};
use crate::child::Child;
use crate::figures::Figures;
use crate::gate::Gate;
use crate::load;
use crate::plan::Scenario;
use crate::verify::Verdict;
use std::time::Duration;
use tokio::time::Instant;

/// How often the server is asked whether it stores again.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take until it does.
const PATIENCE: Duration = Duration::from_secs(60);

impl Measure<'_> {
    /// Load, then the store is cut off for `stopped` while the load goes on, then the store is back.
    pub(super) async fn outage(&self) -> anyhow::Result<(Figures, Verdict)> {
        let plan = self.plan;
        let mut figures = Figures::default();
        let database = self.place.database()?;
        let gate = Gate::before(&database.url).await?;
        let server = self
            .place
            .under_test_at(plan, Scenario::Outage, Some(gate.url(&database.url)?))
            .await?;
        let child = server.start().await?;
        let mut load = self.load(
            &child.target,
            plan.connections(Scenario::Outage),
            plan.array(Scenario::Outage),
        );
        load.rate = plan.rate.map(|rate| rate / load.events_each() as f64);
        load.duration = plan.duration * 2 + plan.stopped;
        let bar = self
            .progress
            .timed("outage: the store goes and comes", load.duration);
        let goes_and_comes = async {
            tokio::time::sleep(plan.duration).await;
            gate.set_open(false);
            tokio::time::sleep(plan.stopped).await;
            let before = stored(&child).await?;
            gate.set_open(true);
            let opened = Instant::now();
            while stored(&child).await? <= before && opened.elapsed() < PATIENCE {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(opened.elapsed())
        };
        let (sent, recovered) = futures::try_join!(load::send(&load, &bar), goes_and_comes)?;
        figures.set("accepted_rate", sent.rate());
        figures.set("p99_ms", sent.latency.at(0.99));
        figures.set("refused", sent.refused as f64);
        figures.set("broken", sent.broken as f64);
        figures.set("recovered_ms", recovered.as_secs_f64() * 1_000.0);
        let ended = sent.ended;
        let all_stored = settle(&child, &sent, &mut Stored::default()).await?;
        let behind = all_stored.saturating_duration_since(ended);
        figures.set("behind_s", behind.as_secs_f64());
        if let Some(usage) = child.usage() {
            figures.set("peak_mb", usage.peak as f64 / MB);
        }
        drop(child);
        let rows = database.ids().await?;
        let verdict = Verdict::of(sent.accepted, rows, &sent.unsure, sent.strange);
        Ok((figures, verdict))
    }
}

async fn stored(child: &Child) -> anyhow::Result<f64> {
    child.metric("eclusa_events_stored_total").await
}

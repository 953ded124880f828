//! Requests over HTTP: as fast as they are answered, then at half that rate, and the same rate on the
//! bare parts.

use super::settle::{Stored, processor_us, settle};
use super::{MB, Measure};
use crate::child::Child;
use crate::figures::Figures;
use crate::load;
use crate::load::{Load, Sent};
use crate::plan::{Part, Scenario};
use crate::verify::Verdict;
use crate::yardsticks::broker;
use indicatif::ProgressBar;

impl Measure<'_> {
    /// Requests over HTTP: as fast as they are answered, then at half that rate, and the same rate
    /// on the bare handler.
    pub(super) async fn loaded(&self, scenario: Scenario) -> anyhow::Result<(Figures, Verdict)> {
        let plan = self.plan;
        let mut figures = Figures::default();
        let server = self.place.under_test(plan, scenario).await?;
        let child = server.start().await?;
        let mut load = self.load(
            &child.target,
            plan.connections(scenario),
            plan.array(scenario),
        );
        let name = scenario.name();

        load.duration = plan.warmup;
        let bar = self
            .progress
            .timed(&format!("{name}: warming up"), plan.warmup);
        let mut all = load::send(&load, &bar).await?;
        settle(&child, &all, &mut Stored::default()).await?;

        load.duration = plan.duration;
        load.rate = plan.rate.map(|rate| rate / load.events_each() as f64);
        load.requests = self.requests(&load);
        let rate = if plan.rate.is_some() {
            let bar = self
                .progress
                .timed(&format!("{name}: at the rate asked for"), plan.duration);
            self.stretch(&child, &load, &bar, &mut all, &mut figures, "")
                .await?
        } else {
            let bar = self
                .progress
                .timed(&format!("{name}: as fast as it goes"), plan.duration);
            let closed = self
                .stretch(&child, &load, &bar, &mut all, &mut figures, "closed_")
                .await?;
            // Processor time and latency are compared where the machine is not full.
            load.rate = Some(closed / 2.0 / load.events_each() as f64);
            load.requests = u64::MAX;
            let bar = self
                .progress
                .timed(&format!("{name}: at half that rate"), plan.duration);
            let rate = self
                .stretch(&child, &load, &bar, &mut all, &mut figures, "")
                .await?;
            figures.set("rate", closed);
            rate
        };
        if let Some(usage) = child.usage() {
            figures.set("peak_mb", usage.peak as f64 / MB);
        }
        drop(child);
        let stored = self.place.stored(&server).await?;
        let verdict = Verdict::of(all.accepted, stored, &all.unsure, all.strange);
        if plan.yardsticks {
            self.compare(scenario, load, rate, &mut figures).await?;
        }
        Ok((figures, verdict))
    }

    /// One stretch of load: sends, waits until all is stored, and notes what that took.
    async fn stretch(
        &self,
        child: &Child,
        load: &Load,
        bar: &ProgressBar,
        all: &mut Sent,
        figures: &mut Figures,
        prefix: &str,
    ) -> anyhow::Result<f64> {
        let frames = async || child.metric("eclusa_frames_published_total").await;
        let (usage, frames_before) = (child.usage(), frames().await?);
        let before = all.accepted.len() as f64;
        let mut trace = Stored::default();
        let sent = trace.during(child, load::send(load, bar)).await?;
        let events = sent.accepted.len() as f64;
        let mut set = |name: &str, value: f64| figures.set(&format!("{prefix}{name}"), value);
        set("accepted_rate", sent.rate());
        set("p50_ms", sent.latency.at(0.5));
        set("p99_ms", sent.latency.at(0.99));
        set("p999_ms", sent.latency.at(0.999));
        set("max_ms", sent.latency.max());
        set("refused", sent.refused as f64);
        set("broken", sent.broken as f64);
        let began = sent.began;
        all.add(sent)?;
        let stored = settle(child, all, &mut trace).await?;
        let whole = events / (stored - began).as_secs_f64();
        let rate = trace.rate(before, events).unwrap_or(whole);
        set("rate", rate);
        set("processor_us", processor_us(usage, child.usage(), events));
        set("frame_events", events / (frames().await? - frames_before));
        Ok(rate)
    }

    /// The bare parts at the rate that the server had.
    async fn compare(
        &self,
        scenario: Scenario,
        mut load: Load,
        rate: f64,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let plan = self.plan;
        let name = scenario.name();
        if plan
            .parts(scenario)
            .iter()
            .any(|part| matches!(part, Part::Handler(_)))
        {
            let handler = self.handler().await?;
            load.target = handler.target.clone();
            load.duration = plan.warmup;
            let bar = self
                .progress
                .timed(&format!("{name}: bare handler"), plan.duration);
            load::send(&load, &bar).await?;
            load.duration = plan.duration;
            let usage = handler.usage();
            let sent = load::send(&load, &bar).await?;
            let events = sent.accepted.len() as f64;
            figures.set(
                "handler_processor_us",
                processor_us(usage, handler.usage(), events),
            );
            figures.set("handler_p99_ms", sent.latency.at(0.99));
        }
        if scenario == Scenario::Full {
            // The frames that the server made at this rate.
            let events = figures.get("frame_events").unwrap_or(1.0).round().max(1.0) as usize;
            let database = self.place.database()?;
            database.empty().await?;
            let _bar = self.progress.busy(&format!("{name}: bare publisher"));
            let latency = broker::paced(
                &self.place.servers.broker,
                &self.place.queues.bare(),
                database,
                events,
                plan.event_bytes,
                rate,
                plan.duration,
            )
            .await?;
            figures.set("bare_p50_ms", latency.at(0.5));
            figures.set("bare_p99_ms", latency.at(0.99));
        }
        Ok(())
    }
}

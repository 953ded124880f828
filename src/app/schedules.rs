//! Starts the scheduler, with an ingest actor of its own.

use super::flow::Flow;
use crate::config::Settings;
use crate::ingest::http_ingest::{HttpIngest, HttpIngestParams};
use crate::schedules::{Emitter, Schedule, Scheduler, SchedulerParams};
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use anyhow::Context as _;
use std::sync::Arc;

/// Messages in the mailbox of the ingest actor: each schedule waits for its event.
const INGEST_MAILBOX: usize = 1_024;

/// Starts the scheduler, on a thread of its own; nothing without schedules.
///
/// # Errors
/// A schedule that is invalid, which the settings refuse before.
pub(super) fn start(
    flow: &Flow,
    settings: &Settings,
) -> anyhow::Result<Option<Mailbox<Scheduler>>> {
    if settings.schedules.is_empty() {
        return Ok(None);
    }
    let limits = settings.item_limits();
    let made = settings.schedules.iter().map(|schedule| {
        Schedule::new(schedule, &limits)
            .map_err(|invalid| anyhow::anyhow!("{} {}", invalid.key, invalid.reason))
            .with_context(|| format!("schedule {:?}", schedule.name))
    });
    let schedules = made.collect::<anyhow::Result<Vec<_>>>()?;
    let starter = Starter {
        metrics: Arc::clone(&flow.metrics),
        health: flow.health.clone(),
        lifecycle: flow.lifecycle.clone(),
    };
    let arbiter = Arbiter::new();
    let (ingest, inbox) = starter.mailbox("schedule_ingest", 0, INGEST_MAILBOX);
    let params = HttpIngestParams {
        target: flow.ingest_target(),
        completions: Default::default(),
        metrics: Arc::clone(&flow.metrics),
    };
    starter.start(&arbiter, inbox, HttpIngest::new(params));
    let (mailbox, inbox) = starter.mailbox("scheduler", 0, 1);
    let params = SchedulerParams {
        schedules,
        emitter: Emitter {
            ingest,
            admission: flow.admission(),
            budget: flow.budget.clone(),
            timeout: settings.ingest.timeout,
            metrics: Arc::clone(&flow.metrics),
        },
        lifecycle: starter.lifecycle.clone(),
    };
    starter.start(&arbiter, inbox, Scheduler::new(params));
    Ok(Some(mailbox))
}

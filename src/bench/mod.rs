//! `eclusa bench`: a load generator and a judge.
//!
//! [`run`] measures whole paths ([`plan::Scenario`]) with the real server as a process of its own
//! ([`under_test`]), and in the same run, on the same machine, the parts they are made of
//! ([`yardsticks`]): an HTTP handler that keeps nothing, a broker and a store that nobody else uses.
//! A path is judged by the share of what its parts alone would allow ([`figures::bound`]), so that
//! the verdict says something on any machine. Afterwards every event that was accepted must be
//! stored once ([`verify`]).
//!
//! It works in a database and on queues of its own ([`place`]), which it removes at the end.

pub mod against;
pub mod body;
pub mod child;
pub mod database;
pub mod figures;
pub mod gate;
pub mod http;
pub mod latency;
pub mod load;
pub mod measure;
pub mod place;
pub mod plan;
pub mod process;
pub mod progress;
pub mod queues;
pub mod report;
pub mod rows;
pub mod schedule;
mod thread;
pub mod under_test;
pub mod verify;
pub mod yardsticks;

use crate::app::signals;
use crate::config::Settings;
use anyhow::bail;
use measure::Measure;
use place::Place;
use plan::{Part, Plan, Scenario};
use progress::Progress;
use report::{Machine, Report};
use std::collections::{BTreeMap, BTreeSet};

/// Measures what the plan says, on the servers that the settings name.
///
/// # Errors
/// When something cannot be measured, or was broken off by a signal. Its database, queues and files
/// are removed also then.
pub async fn run(plan: Plan, settings: &Settings) -> anyhow::Result<Report> {
    let mut stop = std::pin::pin!(signals::stop_requested());
    // From now on a signal waits until there is something to remove, and all of it is known.
    let _ = futures::poll!(stop.as_mut());
    let place = Place::create(&plan, settings).await?;
    let measured = tokio::select! {
        biased;
        () = stop => Err(anyhow::anyhow!("broken off")),
        report = measure(&plan, &place) => report,
    };
    match (measured, place.remove(&plan).await) {
        (Ok(report), Ok(())) => Ok(report),
        (Ok(_), Err(left)) => bail!("measured, but something is left behind: {left:#}"),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => {
            Err(error.context(format!("something is left behind: {left:#}")))
        }
    }
}

async fn measure(plan: &Plan, place: &Place) -> anyhow::Result<Report> {
    let mut wanted = BTreeSet::new();
    if plan.yardsticks {
        wanted.extend(
            plan.scenarios
                .iter()
                .flat_map(|scenario| plan.parts(*scenario)),
        );
    }
    let progress = Progress::new(
        plan.runs * (wanted.len() + if plan.paths { plan.scenarios.len() } else { 0 }),
    );
    let measure = Measure {
        plan,
        place,
        progress: &progress,
    };
    let mut parts: BTreeMap<Part, Vec<f64>> = BTreeMap::new();
    let mut paths: Vec<(Scenario, Vec<_>, Vec<_>)> = plan
        .scenarios
        .iter()
        .filter(|_| plan.paths)
        .map(|scenario| (*scenario, Vec::new(), Vec::new()))
        .collect();
    // In turns, so that what changes on the machine meanwhile strikes all alike.
    for _ in 0..plan.runs {
        for part in &wanted {
            progress.step();
            parts
                .entry(*part)
                .or_default()
                .push(measure.part(*part).await?);
        }
        for (scenario, figures, verdicts) in &mut paths {
            progress.step();
            let (run, verdict) = measure.scenario(*scenario).await?;
            figures.push(run);
            verdicts.extend(verdict);
        }
    }
    let (processor, cores) = process::processors();
    let machine = Machine {
        processor,
        cores,
        eclusa: env!("CARGO_PKG_VERSION").to_owned(),
        postgres: match &place.database {
            Some(database) => Some(database.version().await?),
            None => None,
        },
        rabbitmq: match place.given.broker.url.is_empty() {
            true => None,
            false => queues::version(&place.given).await,
        },
    };
    Ok(Report::new(machine, plan.clone(), &parts, paths))
}

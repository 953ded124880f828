//! A whole run: the place, the measurements in turns, the report.

use crate::measure::Measure;
use crate::place::Place;
use crate::plan::{Part, Plan, Scenario};
use crate::process;
use crate::program::{Program, Servers};
use crate::progress::Progress;
use crate::report::{Machine, Report};
use anyhow::{Context as _, bail};
use std::collections::{BTreeMap, BTreeSet};
use tokio::signal::unix::{SignalKind, signal};

/// Measures what the plan says, on the servers that are given.
///
/// # Errors
/// When something cannot be measured, or was broken off by a signal. Its database, queues and files
/// are removed also then.
pub async fn run(plan: Plan, servers: Servers, program: Program) -> anyhow::Result<Report> {
    // From now on a signal waits until there is something to remove, and all of it is known.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let place = Place::create(&plan, servers, program).await?;
    let measured = tokio::select! {
        biased;
        _ = terminate.recv() => Err(anyhow::anyhow!("broken off")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("broken off")),
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
        eclusa: place.program.version.to_owned(),
        postgres: match &place.database {
            Some(database) => Some(database.version().await?),
            None => None,
        },
        rabbitmq: match place.servers.broker.is_empty() {
            true => None,
            false => (place.program.broker_version)(place.servers.broker.clone()).await,
        },
    };
    Ok(Report::new(machine, plan.clone(), &parts, paths))
}

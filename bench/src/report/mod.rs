//! What was measured: as JSON for machines, as tables for people.

mod tables;

use crate::figures::{Figures, bound};
use crate::plan::{Part, Plan, Scenario, targets};
use crate::target::Check;
use crate::verify::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    pub eclusa: String,
    pub postgres: Option<String>,
    pub rabbitmq: Option<String>,
}

/// One part, measured alone.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Yardstick {
    pub name: String,
    /// Events a second, each time it was measured.
    pub runs: Vec<f64>,
    pub median: f64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub scenario: Scenario,
    /// Connections of the load generator.
    pub connections: usize,
    /// Events in a request as an array; 0 is one alone.
    pub array: usize,
    /// Names of the parts of its path.
    pub parts: Vec<String>,
    /// Figures of each run.
    pub runs: Vec<Figures>,
    /// Their medians, and what follows from them.
    pub median: Figures,
    /// The medians held against what is asked.
    pub checks: Vec<Check>,
    /// What the store had at the end of each run.
    pub verified: Vec<Verdict>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: Machine,
    pub plan: Plan,
    pub yardsticks: Vec<Yardstick>,
    pub scenarios: Vec<Outcome>,
    /// Every accepted event is stored, once.
    pub verified: bool,
}

impl Report {
    /// Puts together what was measured.
    pub fn new(
        machine: Machine,
        plan: Plan,
        parts: &BTreeMap<Part, Vec<f64>>,
        measured: Vec<(Scenario, Vec<Figures>, Vec<Verdict>)>,
    ) -> Self {
        let median = |runs: &Vec<f64>| crate::figures::median(runs.clone()).unwrap_or(f64::NAN);
        let medians: BTreeMap<Part, f64> = parts
            .iter()
            .map(|(part, runs)| (*part, median(runs)))
            .collect();
        let yardsticks = parts
            .iter()
            .map(|(part, runs)| Yardstick {
                name: part.name(),
                runs: runs.clone(),
                median: median(runs),
            })
            .collect();
        let scenarios: Vec<Outcome> = measured
            .into_iter()
            .map(|(scenario, runs, verified)| {
                let parts = plan.parts(scenario);
                let rates: Option<Vec<f64>> = parts
                    .iter()
                    .map(|part| medians.get(part).copied())
                    .collect();
                // A rate that was asked for says nothing of what there could be.
                let rates = rates.filter(|_| plan.rate.is_none());
                let median = conclude(Figures::medians(&runs), rates.and_then(|r| bound(&r)));
                Outcome {
                    scenario,
                    connections: plan.connections(scenario),
                    array: plan.array(scenario),
                    parts: parts.into_iter().map(Part::name).collect(),
                    checks: targets(scenario)
                        .into_iter()
                        .filter_map(|target| target.check(&median))
                        .collect(),
                    runs,
                    median,
                    verified,
                }
            })
            .collect();
        let verified = scenarios
            .iter()
            .flat_map(|outcome| &outcome.verified)
            .all(Verdict::holds);
        Self {
            machine,
            plan,
            yardsticks,
            scenarios,
            verified,
        }
    }
}

/// What follows from the medians.
fn conclude(mut median: Figures, bound: Option<f64>) -> Figures {
    if let Some(bound) = bound {
        median.set("bound", bound);
    }
    for (name, above, below) in [
        ("of_bound", "rate", "bound"),
        ("processor_ratio", "processor_us", "handler_processor_us"),
        ("p99_ratio", "p99_ms", "bare_p99_ms"),
        ("grown_ratio", "grown_batch_ms", "empty_batch_ms"),
    ] {
        if let (Some(above), Some(below)) = (median.get(above), median.get(below)) {
            median.set(name, above / below);
        }
    }
    median
}

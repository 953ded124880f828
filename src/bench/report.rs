//! What was measured: as JSON for machines, as tables for people.

mod tables;

use super::figures::{Figures, bound};
use super::plan::{Part, Plan, Scenario, targets};
use super::verify::Verdict;
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
    /// Version of Eclusa.
    pub eclusa: String,
    /// Version of PostgreSQL.
    pub postgres: Option<String>,
    /// Version of RabbitMQ.
    pub rabbitmq: Option<String>,
}

/// One part, measured alone.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Yardstick {
    /// Which part.
    pub name: String,
    /// Events a second, each time it was measured.
    pub runs: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// A figure that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    figure: &'static str,
    at_least: bool,
    value: f64,
}

impl Target {
    /// The figure must not be smaller.
    pub fn at_least(figure: &'static str, value: f64) -> Self {
        Self {
            figure,
            at_least: true,
            value,
        }
    }

    /// The figure must not be larger.
    pub fn at_most(figure: &'static str, value: f64) -> Self {
        Self {
            figure,
            at_least: false,
            value,
        }
    }

    fn check(self, figures: &Figures) -> Option<Check> {
        let value = figures.get(self.figure)?;
        let met = if self.at_least {
            value >= self.value
        } else {
            value <= self.value
        };
        Some(Check {
            figure: self.figure,
            wanted: format!("{} {}", if self.at_least { ">=" } else { "<=" }, self.value),
            value,
            met,
        })
    }
}

/// A figure held against what is asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which figure.
    pub figure: &'static str,
    /// What is asked.
    pub wanted: String,
    /// What it is.
    pub value: f64,
    /// Whether that is enough.
    pub met: bool,
}

/// One scenario.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which one.
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

/// All of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// How.
    pub plan: Plan,
    /// The parts, alone.
    pub yardsticks: Vec<Yardstick>,
    /// The paths.
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
        let median = |runs: &Vec<f64>| super::figures::median(runs.clone()).unwrap_or(f64::NAN);
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

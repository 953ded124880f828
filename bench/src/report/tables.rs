//! The report as tables, for people.

use super::{Outcome, Report};
use crate::verify::Verdict;

impl Report {
    /// The whole report as tables.
    pub fn table(&self) -> String {
        let mut text = format!(
            "Eclusa {} on {} x {}, PostgreSQL {}, RabbitMQ {}; medians of {}\n",
            self.machine.eclusa,
            self.machine.cores,
            self.machine.processor,
            self.machine.postgres.as_deref().unwrap_or("-"),
            self.machine.rabbitmq.as_deref().unwrap_or("-"),
            self.plan.runs,
        );
        if !self.yardsticks.is_empty() {
            text.push_str("\nParts, each alone\n");
            let rows = self.yardsticks.iter().map(|part| {
                let runs: Vec<String> = part.runs.iter().map(|rate| whole(*rate)).collect();
                vec![part.name.clone(), whole(part.median), runs.join(" ")]
            });
            text.push_str(&table(&["part", "events/s", "runs"], rows.collect()));
        }
        if !self.scenarios.is_empty() {
            text.push_str("\nPaths\n");
            let heads = [
                "path",
                "events/s",
                "bound",
                "of bound",
                "us/event",
                "handler",
                "ratio",
                "p50 ms",
                "p99 ms",
                "peak MB",
                "stored once",
            ];
            text.push_str(&table(&heads, self.scenarios.iter().map(row).collect()));
        }
        let mut checks = Vec::new();
        for outcome in &self.scenarios {
            for check in &outcome.checks {
                checks.push(vec![
                    outcome.scenario.name(),
                    check.figure.to_owned(),
                    format!("{:.2}", check.value),
                    check.wanted.clone(),
                    if check.met { "met" } else { "NOT MET" }.to_owned(),
                ]);
            }
        }
        if !checks.is_empty() {
            text.push_str("\nTargets\n");
            text.push_str(&table(&["path", "figure", "is", "wanted", ""], checks));
        }
        for outcome in &self.scenarios {
            for verdict in outcome.verified.iter().filter(|verdict| !verdict.holds()) {
                text.push_str(&format!(
                    "\nVERIFICATION FAILED in {}: {}\n",
                    outcome.scenario.name(),
                    verdict.reasons()
                ));
            }
        }
        text
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let figure = |name: &str, digits: usize| {
        outcome
            .median
            .get(name)
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let share = outcome
        .median
        .get("of_bound")
        .map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let verified = match &outcome.verified[..] {
        [] => "-",
        all if all.iter().all(Verdict::holds) => "yes",
        _ => "NO",
    };
    vec![
        outcome.scenario.name(),
        figure("rate", 0),
        figure("bound", 0),
        share,
        figure("processor_us", 1),
        figure("handler_processor_us", 1),
        figure("processor_ratio", 2),
        figure("p50_ms", 2),
        figure("p99_ms", 2),
        figure("peak_mb", 1),
        verified.to_owned(),
    ]
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Columns as wide as what is in them; all but the first to the right.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if column == 0 {
                text.push_str(&format!("  {cell:width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push('\n');
    }
    text
}

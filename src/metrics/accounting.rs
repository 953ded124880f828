//! Accounting of events: the number taken equals the sum of all outcomes plus the number in flight.
//!
//! A process accounts for two paths: *ingest* (HTTP and import; published or written directly) and
//! *consume* (messages of the work queue). Taking and settling each change one account under its lock,
//! and a scrape reads all figures under the same lock, so the accounting balances at every scrape.

use crate::event::Outcome;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::sync::Arc;

const EVENTS: &str = "eclusa_accounted_events_total";
const EVENTS_HELP: &str = "Events by path and outcome; `taken` counts accepted events and \
                           equals the sum of the others plus eclusa_events_in_flight.";
const IN_FLIGHT: &str = "eclusa_events_in_flight";
const IN_FLIGHT_HELP: &str = "Events taken and not yet settled, by path.";

/// Label values, in the order of the counters.
const OUTCOMES: [&str; 7] = [
    "published",
    "stored",
    "duplicate",
    "retried",
    "dead_lettered",
    "refused",
    "returned",
];

fn index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Published => 0,
        Outcome::Stored => 1,
        Outcome::Duplicate => 2,
        Outcome::Retried => 3,
        Outcome::DeadLettered(_) => 4,
        Outcome::Refused => 5,
        Outcome::Returned => 6,
    }
}

#[derive(Default)]
struct Totals {
    taken: u64,
    outcomes: [u64; OUTCOMES.len()],
    in_flight: i64,
}

/// The account of one path; clones share its totals.
#[derive(Clone, Default)]
pub struct EventAccounting {
    totals: Arc<Mutex<Totals>>,
}

impl EventAccounting {
    /// Counts events as taken.
    pub fn take(&self, events: usize) {
        let mut totals = self.totals.lock();
        totals.taken += events as u64;
        totals.in_flight += events as i64;
    }

    /// Counts the outcome of one taken event.
    pub fn settle(&self, outcome: Outcome) {
        let mut totals = self.totals.lock();
        totals.in_flight -= 1;
        if let Some(count) = totals.outcomes.get_mut(index(outcome)) {
            *count += 1;
        }
    }

    /// Events taken and not yet settled.
    pub fn in_flight(&self) -> i64 {
        self.totals.lock().in_flight
    }
}

/// The accounts of both paths of a process, exported as metrics.
#[derive(Clone)]
pub struct PathAccounting {
    pub ingest: EventAccounting,
    pub consume: EventAccounting,
    events: Desc,
    in_flight: Desc,
}

impl PathAccounting {
    pub(super) fn new() -> prometheus::Result<Self> {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self {
            ingest: EventAccounting::default(),
            consume: EventAccounting::default(),
            events: Desc::new(
                EVENTS.to_owned(),
                EVENTS_HELP.to_owned(),
                labels(&["path", "outcome"]),
                HashMap::new(),
            )?,
            in_flight: Desc::new(
                IN_FLIGHT.to_owned(),
                IN_FLIGHT_HELP.to_owned(),
                labels(&["path"]),
                HashMap::new(),
            )?,
        })
    }

    /// Events in flight on both paths.
    pub fn in_flight(&self) -> i64 {
        self.ingest.in_flight() + self.consume.in_flight()
    }
}

impl Collector for PathAccounting {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.events, &self.in_flight]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut events = Vec::new();
        let mut in_flight = Vec::new();
        for (name, account) in [("ingest", &self.ingest), ("consume", &self.consume)] {
            let totals = account.totals.lock();
            let rows = std::iter::once(("taken", totals.taken))
                .chain(OUTCOMES.into_iter().zip(totals.outcomes));
            for (outcome, value) in rows {
                events.push(counter(&[("path", name), ("outcome", outcome)], value));
            }
            in_flight.push(gauge(&[("path", name)], totals.in_flight));
        }
        vec![
            family(EVENTS, EVENTS_HELP, MetricType::COUNTER, events),
            family(IN_FLIGHT, IN_FLIGHT_HELP, MetricType::GAUGE, in_flight),
        ]
    }
}

/// A counter sample with these labels, for collectors that keep their own totals.
pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[(&str, &str)], value: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect();
    let mut metric = Metric::default();
    metric.set_label(pairs);
    metric
}

/// A metric family of such samples.
pub(super) fn family(name: &str, help: &str, kind: MetricType, rows: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(rows);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::outcome::Cause;

    #[test]
    fn every_outcome_has_the_counter_of_its_name() {
        for outcome in [
            Outcome::Published,
            Outcome::Stored,
            Outcome::Duplicate,
            Outcome::Retried,
            Outcome::DeadLettered(Cause::Poison),
            Outcome::Refused,
            Outcome::Returned,
        ] {
            assert_eq!(OUTCOMES[index(outcome)], outcome.as_str());
        }
    }

    #[test]
    fn the_accounting_balances_under_concurrent_updates() {
        let accounting = PathAccounting::new().unwrap();
        let account = accounting.ingest.clone();
        let worker = std::thread::spawn(move || {
            for n in 0..10_000 {
                account.take(1);
                account.settle(if n % 3 == 0 {
                    Outcome::Stored
                } else {
                    Outcome::Returned
                });
            }
        });
        while !worker.is_finished() {
            let totals = accounting.ingest.totals.lock();
            let settled: u64 = totals.outcomes.iter().sum();
            assert_eq!(totals.taken as i64, settled as i64 + totals.in_flight);
        }
        worker.join().unwrap();
        assert_eq!(accounting.in_flight(), 0);
    }
}

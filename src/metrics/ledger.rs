//! Double-entry for events: what was taken equals what became of it plus what is in hand.
//!
//! Two ledgers a process: *intake* (HTTP and import; published or written directly) and *consume*
//! (messages of the work queue). Taking and settling each change one ledger under its lock, and a
//! scrape reads both figures under the same lock, so the books balance at every scrape.

use crate::event::Outcome;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::sync::Arc;

const EVENTS: &str = "eclusa_ledger_events_total";
const EVENTS_HELP: &str = "Events entered in a ledger, by outcome; `taken` is what came in, and \
                           equals the sum of the others plus eclusa_events_in_flight.";
const IN_FLIGHT: &str = "eclusa_events_in_flight";
const IN_FLIGHT_HELP: &str = "Events taken and not yet settled, by ledger.";

/// Outcomes in the order of their counters.
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
        Outcome::Refused(_) => 5,
        Outcome::Returned => 6,
    }
}

/// Which door's events a ledger counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerName {
    /// HTTP and import.
    Intake,
    /// The work queue.
    Consume,
}

#[derive(Default)]
struct Books {
    taken: u64,
    outcomes: [u64; OUTCOMES.len()],
    in_flight: i64,
}

/// One ledger; clones share the books.
#[derive(Clone, Default)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

impl Ledger {
    /// Enters events that came in.
    pub fn take(&self, events: usize) {
        let mut books = self.books.lock();
        books.taken += events as u64;
        books.in_flight += events as i64;
    }

    /// Enters what became of one of them.
    pub fn settle(&self, outcome: Outcome) {
        let mut books = self.books.lock();
        books.in_flight -= 1;
        if let Some(count) = books.outcomes.get_mut(index(outcome)) {
            *count += 1;
        }
    }

    /// Events taken and not yet settled.
    pub fn in_flight(&self) -> i64 {
        self.books.lock().in_flight
    }
}

/// Both ledgers, as a metric.
#[derive(Clone)]
pub struct Ledgers {
    /// HTTP and import.
    pub intake: Ledger,
    /// The work queue.
    pub consume: Ledger,
    events: Desc,
    in_flight: Desc,
}

impl Ledgers {
    pub(super) fn new() -> prometheus::Result<Self> {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self {
            intake: Ledger::default(),
            consume: Ledger::default(),
            events: Desc::new(
                EVENTS.to_owned(),
                EVENTS_HELP.to_owned(),
                labels(&["ledger", "outcome"]),
                HashMap::new(),
            )?,
            in_flight: Desc::new(
                IN_FLIGHT.to_owned(),
                IN_FLIGHT_HELP.to_owned(),
                labels(&["ledger"]),
                HashMap::new(),
            )?,
        })
    }

    /// The ledger of a door.
    pub fn of(&self, name: LedgerName) -> &Ledger {
        match name {
            LedgerName::Intake => &self.intake,
            LedgerName::Consume => &self.consume,
        }
    }

    /// Events in hand in both.
    pub fn in_flight(&self) -> i64 {
        self.intake.in_flight() + self.consume.in_flight()
    }
}

impl Collector for Ledgers {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.events, &self.in_flight]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut events = Vec::new();
        let mut in_flight = Vec::new();
        for (name, ledger) in [("intake", &self.intake), ("consume", &self.consume)] {
            let books = ledger.books.lock();
            let rows = std::iter::once(("taken", books.taken))
                .chain(OUTCOMES.into_iter().zip(books.outcomes));
            for (outcome, value) in rows {
                events.push(counter(&[("ledger", name), ("outcome", outcome)], value));
            }
            in_flight.push(gauge(&[("ledger", name)], books.in_flight));
        }
        vec![
            family(EVENTS, EVENTS_HELP, MetricType::COUNTER, events),
            family(IN_FLIGHT, IN_FLIGHT_HELP, MetricType::GAUGE, in_flight),
        ]
    }
}

/// A counter with these labels, for collectors that keep their own figures.
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

/// A family of such metrics.
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
        use crate::event::outcome::Refusal;
        for outcome in [
            Outcome::Published,
            Outcome::Stored,
            Outcome::Duplicate,
            Outcome::Retried,
            Outcome::DeadLettered(Cause::Poison),
            Outcome::Refused(Refusal::Overloaded),
            Outcome::Returned,
        ] {
            assert_eq!(OUTCOMES[index(outcome)], outcome.as_str());
        }
    }

    #[test]
    fn the_books_balance_while_events_come_and_go() {
        let ledgers = Ledgers::new().unwrap();
        let ledger = ledgers.intake.clone();
        let worker = std::thread::spawn(move || {
            for n in 0..10_000 {
                ledger.take(1);
                ledger.settle(if n % 3 == 0 {
                    Outcome::Stored
                } else {
                    Outcome::Returned
                });
            }
        });
        while !worker.is_finished() {
            let books = ledgers.intake.books.lock();
            let settled: u64 = books.outcomes.iter().sum();
            assert_eq!(books.taken as i64, settled as i64 + books.in_flight);
        }
        worker.join().unwrap();
        assert_eq!(ledgers.in_flight(), 0);
    }
}

//! Which paths are measured, by which parts they are judged, and what is asked of them.

use crate::target::Target;
use clap::ValueEnum;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// A path of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One event a request, straight to PostgreSQL
    Direct,
    /// One event a request, through RabbitMQ to PostgreSQL
    Full,
    /// Single-event messages of a foreign publisher that wait on the queue when the server starts
    Drain,
    /// Arrays of events, straight to PostgreSQL
    ArraysDirect,
    /// Arrays of events, through RabbitMQ to PostgreSQL
    ArraysFull,
    /// Arrays of events to SQLite
    Embedded,
    /// From start to ready on a migrated store, and memory while nothing happens
    Idle,
    /// One event a request while the store is cut off and comes back (takes a minute and more)
    Outage,
    /// Time of one batch in an empty log and in one of ten million rows (takes minutes)
    Grown,
}

/// A part of a path that is measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The bare handler, with arrays of so many events (0: single ones).
    Handler(usize),
    /// The bare broker, with frames of so many events.
    Frames(usize),
    /// Consuming single-event messages that wait.
    Waiting,
    Postgres,
    Sqlite,
}

impl Part {
    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Part::Handler(0) => "handler, single events".to_owned(),
            Part::Handler(array) => format!("handler, arrays of {array}"),
            Part::Frames(events) => format!("broker, frames of {events}"),
            Part::Waiting => "broker, waiting messages".to_owned(),
            Part::Postgres => "PostgreSQL, batches of 500".to_owned(),
            Part::Sqlite => "SQLite, batches of 1000".to_owned(),
        }
    }
}

/// Events in a frame of the bare broker where requests are single events.
const FRAME: usize = 30;

impl Scenario {
    /// Its name in reports and on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it needs PostgreSQL.
    pub fn needs_store(self) -> bool {
        !matches!(self, Scenario::Embedded | Scenario::Idle)
    }

    /// Whether it needs RabbitMQ.
    pub fn needs_broker(self) -> bool {
        matches!(
            self,
            Scenario::Full | Scenario::Drain | Scenario::ArraysFull
        )
    }

    /// Whether it goes through RabbitMQ where there is one.
    pub fn uses_broker(self) -> bool {
        self.needs_broker() || matches!(self, Scenario::Idle | Scenario::Outage)
    }

    /// Those that run when none is named: all that the given servers allow, but the ones that take
    /// long.
    pub fn default_for(store: bool, broker: bool) -> Vec<Self> {
        use Scenario::{ArraysDirect, ArraysFull, Direct, Drain, Embedded, Full, Idle};
        let fits = |scenario: &Scenario| {
            (store || !scenario.needs_store()) && (broker || !scenario.needs_broker())
        };
        [
            Direct,
            Full,
            Drain,
            ArraysDirect,
            ArraysFull,
            Embedded,
            Idle,
        ]
        .into_iter()
        .filter(fits)
        .collect()
    }

    /// Connections and events in an array, unless asked otherwise.
    fn shape(self) -> (usize, usize) {
        match self {
            Scenario::Direct | Scenario::Full | Scenario::Outage => (64, 0),
            _ => (16, 100),
        }
    }
}

/// Settings that the server under test starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The defaults
    Default,
    /// The ones for throughput (eclusa config profile throughput)
    Throughput,
}

/// What to measure, and how.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub scenarios: Vec<Scenario>,
    /// Connections; each scenario's own number if not given.
    pub connections: Option<usize>,
    /// Events in a request as an array, 0 for single ones; each scenario's own if not given.
    pub array: Option<usize>,
    /// Events a second (open loop) instead of as fast as they are answered.
    pub rate: Option<f64>,
    /// How long each measurement takes, in seconds.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// Most events of a measurement; for `drain` the messages that wait.
    pub events: Option<u64>,
    /// Load before each measurement, not counted.
    #[serde(serialize_with = "seconds")]
    pub warmup: Duration,
    /// How long the store is cut off in `outage`.
    #[serde(serialize_with = "seconds")]
    pub stopped: Duration,
    /// How often everything is measured; medians count.
    pub runs: usize,
    /// Threads of the load generator.
    pub threads: usize,
    /// Bytes of an event.
    pub event_bytes: usize,
    /// Measure the parts too.
    pub yardsticks: bool,
    /// Measure the scenarios, and not only their parts.
    pub paths: bool,
    /// What the server under test starts from.
    pub profile: Profile,
    #[serde(skip)]
    pub set: Vec<(String, String)>,
    /// Where files are kept meanwhile.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Plan {
    /// Connections of a scenario.
    pub fn connections(&self, scenario: Scenario) -> usize {
        self.connections.unwrap_or(scenario.shape().0)
    }

    /// Events in a request as an array; 0 is one alone.
    pub fn array(&self, scenario: Scenario) -> usize {
        self.array.unwrap_or(scenario.shape().1)
    }

    /// Messages that wait in `drain`.
    pub fn waiting(&self) -> u64 {
        self.events.unwrap_or(500_000)
    }

    /// The parts of a scenario's path.
    pub fn parts(&self, scenario: Scenario) -> Vec<Part> {
        let array = self.array(scenario);
        let handler = Part::Handler(array);
        let frames = Part::Frames(array.max(FRAME));
        match scenario {
            Scenario::Direct | Scenario::ArraysDirect => vec![handler, Part::Postgres],
            Scenario::Full | Scenario::ArraysFull => vec![handler, frames, Part::Postgres],
            Scenario::Drain => vec![Part::Waiting, Part::Postgres],
            Scenario::Embedded => vec![Part::Sqlite],
            Scenario::Idle | Scenario::Outage | Scenario::Grown => Vec::new(),
        }
    }
}

/// What is asked of a scenario.
pub fn targets(scenario: Scenario) -> Vec<Target> {
    let share = |share| Target::at_least("of_bound", share);
    let peak = Target::at_most("peak_mb", 64.0);
    match scenario {
        Scenario::Direct => vec![share(0.75), Target::at_most("processor_ratio", 1.6), peak],
        Scenario::Full => vec![
            share(0.65),
            Target::at_most("processor_ratio", 2.0),
            Target::at_most("p99_ratio", 3.0),
            peak,
        ],
        Scenario::Drain => vec![share(0.80), peak],
        Scenario::ArraysFull => vec![share(0.70), peak],
        Scenario::ArraysDirect => vec![share(0.80), peak],
        Scenario::Embedded => vec![share(0.75), peak],
        Scenario::Idle => vec![
            Target::at_most("resident_mb", 20.0),
            Target::at_most("start_ms", 200.0),
        ],
        Scenario::Outage => vec![peak],
        Scenario::Grown => vec![Target::at_most("grown_ratio", 1.3)],
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_everything_runs_that_the_servers_allow() {
        let names = |store, broker| -> Vec<String> {
            Scenario::default_for(store, broker)
                .into_iter()
                .map(Scenario::name)
                .collect()
        };
        assert_eq!(names(false, false), ["embedded", "idle"]);
        assert_eq!(
            names(true, false),
            ["direct", "arrays-direct", "embedded", "idle"]
        );
        assert_eq!(names(true, true).len(), 7);
    }
}

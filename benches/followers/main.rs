//! Measures followers of the log on a PostgreSQL server, and checks them while they are killed.
//!
//! ```sh
//! cargo bench --bench followers -- latency --url postgres://postgres@127.0.0.1:5432/postgres
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `latency` | from commit to applied at 1,000 events/s, alone, beside an open transaction, from another process |
//! | `snapshot --commits N` | the same and the rate of commits, while N commits pass and a snapshot is held open |
//! | `rate --events N` | how fast a counting follower reads, with 10 and with 400 days |
//! | `outlets --events N --broker URL [--window W]` | how fast an outlet sends to a RabbitMQ stream, and to an exchange with a quorum queue |
//! | `locks` | locks of 20 followers on 400 days, while events are written |
//! | `idle` | processor time of ten followers that have nothing to do |
//! | `faults --events N` | writers and open transactions, processes killed: each event applied once, in one order |
//!
//! RabbitMQ's processor time is that of all Erlang machines here.
//!
//! Each run has a database of its own on the server, which it drops at the end. Times are wall-clock
//! times of this machine: compare runs on one machine only.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made ends by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the tasks of a measurement end with it, and need no supervisor"
)]

mod command_line;
mod database;
mod faults;
mod idle;
mod latency;
mod outlets;
mod projections;
mod rate;
mod snapshot;

use command_line::CommandLine;
use std::time::Duration;

/// What was asked for.
pub struct Arguments {
    pub url: String,
    pub events: usize,
    pub commits: usize,
    pub time: Duration,
    pub broker: Option<String>,
    pub window: usize,
}

fn main() {
    let line = CommandLine::read();
    let arguments = Arguments {
        url: line.text("--url").unwrap_or_default(),
        events: line.number("--events", 1_000_000),
        commits: line.number("--commits", 1_000_000),
        time: Duration::from_secs(line.number("--seconds", 30) as u64),
        broker: line.text("--broker"),
        window: line.number("--window", 500),
    };
    let command = line.command().unwrap_or_default();
    if command.is_empty() || arguments.url.is_empty() {
        // `cargo bench` without arguments runs every target.
        println!(
            "followers: nothing to do without a command and --url; see benches/followers/main.rs"
        );
        return;
    }
    actix_rt::System::new().block_on(async {
        match command {
            // The other process of `latency` and `faults`.
            "follow" => projections::follow(&arguments.url).await,
            "latency" => latency::run(&arguments).await,
            "snapshot" => snapshot::run(&arguments).await,
            "rate" => rate::run(&arguments).await,
            "outlets" => outlets::run(&arguments).await,
            "locks" => idle::locks(&arguments).await,
            "idle" => idle::run(&arguments).await,
            "faults" => faults::run(&arguments).await,
            other => {
                panic!("{other} is none of latency, snapshot, rate, outlets, locks, idle, faults")
            }
        }
    });
}

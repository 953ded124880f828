//! Measures reactions: how fast runs of a handler that does nothing get their outcome, and how soon a handler starts.
//!
//! ```sh
//! cargo bench --bench reactions -- rate --url postgres://postgres@127.0.0.1:5432/postgres
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `rate --events N --concurrency C [--behind R]` | runs a second, marks of processed events included; R finished runs are there before |
//! | `snapshot --events N --concurrency C` | the same while a snapshot is held open |
//! | `latency --seconds S` | from commit to the start of the handler, at 500 events/s |
//!
//! Without `--url` `rate` and `latency` use a SQLite file. Each run has a database of its own on the server, which it
//! drops at the end. Times are wall-clock times of this machine: compare runs on one machine only.

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

#[path = "../followers/command_line.rs"]
mod command_line;
#[path = "../followers/database.rs"]
mod database;
mod latency;
mod place;
mod rate;

use command_line::CommandLine;
use std::time::Duration;

/// What was asked for.
pub struct Arguments {
    pub url: Option<String>,
    pub events: usize,
    pub concurrency: u32,
    pub behind: i64,
    pub time: Duration,
}

fn main() {
    let line = CommandLine::read();
    let arguments = Arguments {
        url: line.text("--url"),
        events: line.number("--events", 50_000),
        concurrency: line.number("--concurrency", 500) as u32,
        behind: line.number("--behind", 0) as i64,
        time: Duration::from_secs(line.number("--seconds", 20) as u64),
    };
    let Some(command) = line.command() else {
        // `cargo bench` without arguments runs every target.
        println!("reactions: nothing to do without a command; see benches/reactions/main.rs");
        return;
    };
    actix_rt::System::new().block_on(async {
        match command {
            "rate" => rate::run(&arguments, false).await,
            "snapshot" => rate::run(&arguments, true).await,
            "latency" => latency::run(&arguments).await,
            other => panic!("{other} is none of rate, snapshot, latency"),
        }
    });
}

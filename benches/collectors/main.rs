//! Measures collectors of Pix messages, who call the real program over HTTP.
//!
//! ```sh
//! cargo bench --bench collectors -- rate --url postgres://postgres@127.0.0.1:5432/postgres
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `rate --ispbs I --collectors C --messages N [--behind B] [--snapshot] [--single]` | messages a second and their processor time, from the first `start` to the last acknowledgement; each must come once |
//! | `latency --tries T` | from the answer to the sender of a message to the answer to the collector who waits for it, on one replica and on another |
//! | `idle --polls P --collectors C --seconds S` | memory and processor time of calls that wait, C for each ISPB |
//!
//! With `--behind` B messages were collected before ([`behind`] says how). With `--snapshot` a snapshot of the
//! database is held open from before them on. With `--single` each answer has one message, else up to ten.
//!
//! Without `--url` the server has a SQLite file. Each run has a database of its own, which it drops at the end. Times
//! are wall-clock times of this machine: compare runs on one machine only. The program runs with its default settings,
//! but for the limits that the number of collectors needs.
//!
//! This process shares the processor with what it measures, so it does little for an answer ([`client`]), on one
//! thread. Processor time is that of the server and of PostgreSQL; what this process takes is shown beside it.
//!
//! `idle` needs a file for each call here, and two in the server, whose limit is the one of this process: `ulimit -n
//! 65536` before it is enough for 30,000 calls.

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

mod behind;
mod client;
#[path = "../followers/command_line.rs"]
mod command_line;
#[expect(
    dead_code,
    reason = "the log is written by the server, and followers run in it"
)]
#[path = "../followers/database.rs"]
mod database;
mod idle;
mod latency;
mod messages;
mod place;
mod rate;
mod server;

use command_line::CommandLine;
use std::time::Duration;

/// What was asked for.
pub struct Arguments {
    pub url: Option<String>,
    pub ispbs: usize,
    /// For each ISPB.
    pub collectors: usize,
    pub messages: usize,
    pub behind: usize,
    pub snapshot: bool,
    pub single: bool,
    pub tries: usize,
    pub polls: usize,
    pub time: Duration,
}

fn main() {
    let line = CommandLine::read();
    let is_given = |option: &str| std::env::args().any(|one| one == option);
    let arguments = Arguments {
        url: line.text("--url"),
        ispbs: line.number("--ispbs", 200),
        collectors: line.number("--collectors", 6),
        messages: line.number("--messages", 100_000),
        behind: line.number("--behind", 0),
        snapshot: is_given("--snapshot"),
        single: is_given("--single"),
        tries: line.number("--tries", 200),
        polls: line.number("--polls", 10_000),
        time: Duration::from_secs(line.number("--seconds", 30) as u64),
    };
    let Some(command) = line.command() else {
        // `cargo bench` without arguments runs every target.
        println!("collectors: nothing to do without a command; see benches/collectors/main.rs");
        return;
    };
    actix_rt::System::new().block_on(async {
        match command {
            "rate" => rate::run(&arguments).await,
            "latency" => latency::run(&arguments).await,
            "idle" => idle::run(&arguments).await,
            other => panic!("{other} is none of rate, latency, idle"),
        }
    });
}

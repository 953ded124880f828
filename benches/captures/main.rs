//! Measures captures: the real program reads the changes of a table that this process writes.
//!
//! ```sh
//! cargo bench --bench captures -- rate --captured postgres://postgres@127.0.0.1:5432/postgres
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `backlog --changes N --each E` | changes a second when N changes are there already, in transactions of E |
//! | `rate --rate R --seconds S --each E --writers W` | whether changes are captured as fast as they are made, and how far behind they are |
//! | `latency --rate R --seconds S --each E` | from the commit of a change to the commit of its event |
//! | `idle --seconds S` | processor time of a capture of which no table is written |
//! | `others --rate R --seconds S --writers W` | how much log the slot has not confirmed while R rows a second are written to another table |
//! | `snapshot --rows N --rate R` | a snapshot with R changes a second, with kill -9 at a third and at two thirds: is it complete, how much was read twice, and how much memory the server takes |
//!
//! The server stores in the database whose tables it captures; with `--sqlite` in a file. The captured server needs
//! `wal_level = logical`, and for `latency` `track_commit_timestamp = on`. Each run has a database of its own, which it
//! drops at the end. Times are wall-clock times of this machine: compare runs on one machine only. The program runs with
//! its default settings.
//!
//! The table is that of accounts of pgbench (`id`, `branch`, `balance`, 84 bytes of filler), and a change adds to a
//! balance. Processor time is that of the server and of PostgreSQL, which also makes the changes.

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
#[expect(
    dead_code,
    reason = "the log is written by the server, and followers run in it"
)]
#[path = "../followers/database.rs"]
mod database;
mod idle;
mod latency;
mod load;
#[expect(dead_code, reason = "the SQLite file is not looked at")]
#[path = "../collectors/place.rs"]
mod place;
mod rate;
#[expect(dead_code, reason = "streams are of another measurement")]
#[path = "../collectors/server.rs"]
mod server;
mod site;
mod snapshot;

use command_line::CommandLine;
use std::time::Duration;

/// What was asked for.
pub struct Arguments {
    /// Of the server that is captured.
    pub captured: String,
    /// Of the store; `None` for SQLite.
    pub url: Option<String>,
    pub rows: usize,
    pub changes: usize,
    /// Changes a second.
    pub rate: usize,
    /// Changes of a transaction.
    pub each: usize,
    pub writers: usize,
    pub time: Duration,
}

fn main() {
    let line = CommandLine::read();
    let Some(command) = line.command() else {
        // `cargo bench` without arguments runs every target.
        println!("captures: nothing to do without a command; see benches/captures/main.rs");
        return;
    };
    let captured = line.text("--captured").expect("--captured names a server");
    let in_file = std::env::args().any(|one| one == "--sqlite");
    let arguments = Arguments {
        url: (!in_file).then(|| captured.clone()),
        captured,
        rows: line.number("--rows", 100_000),
        changes: line.number("--changes", 300_000),
        rate: line.number("--rate", 2_000),
        each: line.number("--each", 4),
        writers: line.number("--writers", 4),
        time: Duration::from_secs(line.number("--seconds", 30) as u64),
    };
    actix_rt::System::new().block_on(async {
        match command {
            "backlog" => rate::backlog(&arguments).await,
            "rate" => rate::paced(&arguments).await,
            "latency" => latency::run(&arguments).await,
            "idle" => idle::idle(&arguments).await,
            "others" => idle::others(&arguments).await,
            "snapshot" => snapshot::run(&arguments).await,
            other => {
                panic!("{other} is none of backlog, rate, latency, idle, others, snapshot")
            }
        }
    });
}

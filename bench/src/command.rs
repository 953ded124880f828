//! The command line of `eclusa bench`.

use crate::http::Target;
use crate::load::Load;
use crate::plan::{Plan, Profile, Scenario};
use crate::program::{Program, Servers};
use crate::{against, body, run, yardsticks};
use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Events in an array when only a running server is driven: single ones.
const SINGLE: usize = 0;

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure (default: all that the servers in the settings allow, but grown)
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Connections of the load generator (default: 64 with single events, 16 with arrays)
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// Threads of the load generator
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    threads: usize,
    /// Send so many events a second, whatever the answers do, and count each answer's time from when
    /// its request was due (default: each connection sends as soon as it is answered)
    #[arg(long, value_name = "EVENTS")]
    rate: Option<f64>,
    /// Events in a request as an array; 0 is one event alone (default: by scenario)
    #[arg(long, value_name = "EVENTS")]
    array: Option<usize>,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Most events of a measurement; in drain the messages that wait (default there: 500000)
    #[arg(long, value_name = "NUMBER")]
    events: Option<u64>,
    /// Load before each measurement, not counted
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// How often everything is measured; medians count
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    runs: usize,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = body::DEFAULT_BYTES)]
    payload_bytes: usize,
    /// Settings the server under test starts from; --set goes over them
    #[arg(long, value_enum, default_value = "throughput")]
    profile: Profile,
    /// How long the store is cut off in outage
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    stopped: Duration,
    /// Measure only the parts alone
    #[arg(long, conflicts_with = "no_yardsticks")]
    only_yardsticks: bool,
    /// Do not measure the parts alone; there are no bounds then
    #[arg(long)]
    no_yardsticks: bool,
    /// Folder for SQLite files and logs meanwhile (default: the system's for temporary files)
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the report as JSON to this file, or to standard output (-) instead of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only send load to this server, which runs already, such as http://127.0.0.1:3000. It keeps
    /// the events
    #[arg(long, value_name = "URL", conflicts_with = "scenarios")]
    url: Option<String>,
    /// API key for that server
    #[arg(
        long,
        value_name = "KEY",
        env = "ECLUSA_API_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// How many of the accepted events that server is asked for afterwards
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    sample: usize,
}

/// Options of the process that the bare handler is.
#[derive(Args)]
pub struct HandlerArgs {
    /// Worker threads
    #[arg(long)]
    workers: usize,
}

impl BenchArgs {
    /// Measures on these servers with these settings, and prints what came of it. The exit code is a
    /// failure when an accepted event is missing or stored twice.
    ///
    /// # Errors
    /// When something cannot be measured.
    pub async fn run(
        self,
        servers: impl FnOnce() -> anyhow::Result<Servers>,
        set: Vec<(String, String)>,
        program: Program,
    ) -> anyhow::Result<ExitCode> {
        check(&self)?;
        if let Some(url) = &self.url {
            return drive(url, &self).await;
        }
        let servers = servers()?;
        let scenarios = match &self.scenarios[..] {
            [] => Scenario::default_for(!servers.store.is_empty(), !servers.broker.is_empty()),
            named => named.to_vec(),
        };
        let plan = Plan {
            scenarios,
            connections: self.connections,
            array: self.array,
            rate: self.rate,
            duration: self.duration,
            events: self.events,
            warmup: self.warmup,
            runs: self.runs,
            threads: self.threads,
            event_bytes: self.payload_bytes,
            stopped: self.stopped,
            yardsticks: !self.no_yardsticks,
            paths: !self.only_yardsticks,
            profile: self.profile,
            set,
            folder: self.folder.clone().unwrap_or_else(std::env::temp_dir),
        };
        let report = run::run(plan, servers, program).await?;
        print(&self, &report, || report.table())?;
        Ok(verdict(report.verified))
    }
}

impl HandlerArgs {
    /// Runs the bare handler until its parent is gone.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        yardsticks::handler::serve(self.workers).await?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn drive(url: &str, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let array = args.array.unwrap_or(SINGLE);
    let load = Load {
        target: Target::of_url(url, args.key.clone()).await?,
        connections: args.connections.unwrap_or(64),
        threads: args.threads,
        array,
        event_bytes: args.payload_bytes,
        rate: args.rate.map(|rate| rate / array.max(1) as f64),
        duration: args.duration,
        requests: args
            .events
            .map_or(u64::MAX, |events| events.div_ceil(array.max(1) as u64)),
    };
    let against = against::run(&load, args.warmup, args.sample).await?;
    print(args, &against, || against.table())?;
    Ok(verdict(against.holds()))
}

fn check(args: &BenchArgs) -> anyhow::Result<()> {
    let positive = [
        ("--connections", args.connections.unwrap_or(1)),
        ("--threads", args.threads),
        ("--runs", args.runs),
        (
            "--events",
            args.events.map_or(1, |events| events.min(1) as usize),
        ),
    ];
    for (name, value) in positive {
        if value == 0 {
            bail!("{name} must be at least 1");
        }
    }
    if args
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        bail!("--rate must be more than 0");
    }
    if args.threads > 16 {
        bail!("--threads must be at most 16");
    }
    if args.connections.unwrap_or(1) > 4_096 {
        bail!("--connections must be at most 4096");
    }
    if args.duration.is_zero() {
        bail!("--duration must be longer than nothing");
    }
    Ok(())
}

fn print(
    args: &BenchArgs,
    report: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let json = || serde_json::to_string_pretty(report).map(|text| text + "\n");
    match &args.json {
        Some(file) if file.as_os_str() == "-" => {
            write(&json()?)?;
        }
        Some(file) => {
            std::fs::write(file, json()?)
                .with_context(|| format!("cannot write {}", file.display()))?;
            write(&table())?;
        }
        None => {
            write(&table())?;
        }
    }
    Ok(())
}

fn verdict(holds: bool) -> ExitCode {
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// To standard output. Who closes it early, such as `head`, has what they want.
fn write(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

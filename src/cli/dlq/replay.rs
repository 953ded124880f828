//! `eclusa dlq replay`

use super::{DeadLetterFilterArgs, remote};
use crate::app::flow::{Flow, Following};
use crate::cli::direct;
use crate::cli::progress::progress_bar;
use crate::cli::server::{Place, Server, ServerArgs};
use crate::config::{LiveSettings, Settings};
use crate::dead_letters::replay::{NotReplayed, Replay, Report};
use crate::store::DeadLetterStore;
use crate::store::dead_letters::DeadLetterState;
use crate::supervision::Backoff;
use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long to retry while the store cannot be written.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// Options of `replay`.
#[derive(Args)]
pub struct ReplayArgs {
    /// Only these dead letters
    ids: Vec<Uuid>,
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// At most this many
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Dead letters a second; 0 is unlimited (default: dead_letters.replay_rate)
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Replays, and prints the result.
pub async fn run(settings: Settings, args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut filter = args.filter.filter(&args.ids);
    filter.state.get_or_insert(DeadLetterState::Dead);
    let replay = Replay {
        filter,
        limit: args.limit,
        rate: args.rate,
        dry_run: args.dry_run,
        ..Replay::default()
    };
    let total = match args.server.place(&settings)? {
        Place::There(server) => there(&server, replay).await?,
        Place::Here(_lock) => here(settings, replay).await?,
    };
    for NotReplayed { id, reason } in &total.failures {
        eprintln!("{id}: {}", crate::cli::table::printable(reason));
    }
    let done = if args.dry_run {
        "would be replayed"
    } else {
        "replayed"
    };
    println!("{} {done}, {} failed", total.replayed, total.failed);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Into the store directly, also where there is a broker, so that no server has to run.
async fn here(settings: Settings, mut replay: Replay) -> anyhow::Result<Report> {
    let store = crate::app::store::open(&settings).await?;
    let total = matching(&*store, &replay).await?;
    let live = LiveSettings::new(direct(settings)?);
    let flow = Flow::start(&live, store, None, Following::default()).await?;
    let replayer = flow.replayer(&live);
    let bar = progress_bar(total);
    let mut sum = Report::default();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut last = Instant::now();
    loop {
        let before = sum.replayed + sum.failed;
        let report = replayer
            .run(&replay, |report| show(&bar, before, report))
            .await?;
        let next = add(&mut sum, report, &mut replay);
        let Some(reason) = sum.stopped.take() else {
            break;
        };
        if sum.replayed + sum.failed > before {
            last = Instant::now();
            backoff.reset();
        }
        if last.elapsed() > RETRY_FOR || !next {
            bail!(
                "{} replayed, then: {reason}; run it again later",
                sum.replayed
            );
        }
        bar.suspend(|| tracing::warn!(reason, "waiting for the store"));
        tokio::time::sleep(backoff.next_pause()).await;
    }
    bar.finish_and_clear();
    Ok(sum)
}

/// By a server, which replays in parts.
async fn there(server: &Server, mut replay: Replay) -> anyhow::Result<Report> {
    let mut sum = Report::default();
    let mut bar: Option<ProgressBar> = None;
    loop {
        let (matched, report) = remote::replay(server, &replay).await?;
        let bar = bar.get_or_insert_with(|| {
            progress_bar(replay.limit.map_or(matched, |limit| limit.min(matched)))
        });
        let more = add(&mut sum, report, &mut replay);
        show(bar, 0, &sum);
        if !more {
            bar.finish_and_clear();
            return Ok(sum);
        }
    }
}

async fn matching(store: &(impl DeadLetterStore + ?Sized), replay: &Replay) -> anyhow::Result<u64> {
    let matching = store.count_letters(&replay.filter).await?;
    Ok(replay.limit.map_or(matching, |limit| limit.min(matching)))
}

fn show(bar: &ProgressBar, before: u64, report: &Report) {
    bar.set_position(before + report.replayed + report.failed);
    bar.set_message(format!("{} failed", report.failed));
}

/// Adds a run's report to the sum and sets up the next run. `false` when there is none to be.
fn add(sum: &mut Report, report: Report, replay: &mut Replay) -> bool {
    sum.replayed += report.replayed;
    sum.failed += report.failed;
    sum.failures.extend(report.failures);
    sum.stopped = report.stopped;
    replay.cursor = report.next;
    if let Some(limit) = &mut replay.limit {
        *limit = limit.saturating_sub(report.replayed + report.failed);
    }
    replay.cursor.is_some() && replay.limit != Some(0)
}

//! `eclusa events import`

use super::lines::{BadLine, Lines};
use super::remote;
use super::remote::Written;
use crate::app::embedded_lock::EmbeddedLock;
use crate::app::flow::{Flow, Following};
use crate::batch::messages::AccumulatorMessage;
use crate::cli::server::{Place, Server, ServerArgs};
use crate::config::{LiveSettings, Settings};
use crate::event::{Event, Outcome};
use crate::ingest::request;
use crate::supervision::Backoff;
use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Events in a chunk. Larger than a live batch, since no caller waits for a single event.
const CHUNK: usize = 1_000;
/// The same over HTTP, below the default of http.max_items.
const REMOTE_CHUNK: usize = 500;
/// Bytes of a chunk, below the default of http.max_body.
const CHUNK_BYTES: usize = 512 * 1024;
/// Chunks in flight at once.
const UNDER_WAY: usize = 6;
/// Bad lines whose reasons are printed.
const SHOWN: u64 = 20;
/// How long to retry while the store cannot be written.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// Options of `import`.
#[derive(Args)]
pub struct ImportArgs {
    /// The file, or - for standard input
    file: PathBuf,
    /// Name of the source, part of the ids of lines that have none (default: the file's name;
    /// standard input has none)
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Write lines that are no events to this file
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Where the events go.
enum ImportTarget {
    /// Through the actors of this process into the store.
    Here {
        flow: Box<Flow>,
        _lock: Option<EmbeddedLock>,
    },
    /// To a server.
    There(Server),
}

/// Imports the file.
pub async fn run(settings: Settings, args: ImportArgs) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open(&args.file, args.source.clone(), &settings)?;
    let mut rejects = args
        .rejects
        .as_ref()
        .map(|path| {
            File::create(path)
                .map(BufWriter::new)
                .with_context(|| format!("cannot write {}", path.display()))
        })
        .transpose()?;
    let target = target(settings, &args).await?;
    let chunk = match target {
        ImportTarget::Here { .. } => CHUNK,
        ImportTarget::There(_) => REMOTE_CHUNK,
    };
    let bar = progress_bar(lines.size);
    let (mut total, mut bad) = (Written::default(), 0);
    let mut under_way = FuturesUnordered::new();
    let began = Instant::now();
    loop {
        let mut events = Vec::with_capacity(chunk);
        let mut bytes = 0;
        let mut ended = false;
        while events.len() < chunk && bytes < CHUNK_BYTES {
            match lines.next()? {
                Some(Ok(event)) => {
                    bytes += event.weight();
                    events.push(event);
                }
                Some(Err(line)) => {
                    bad += 1;
                    reject(&bar, &line, bad, rejects.as_mut())?;
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        let last = ended;
        if !events.is_empty() {
            under_way.push(hand_over(&target, events));
        }
        while under_way.len() >= UNDER_WAY || (last && !under_way.is_empty()) {
            if let Some(taken) = under_way.next().await {
                let taken: Written = taken?;
                total.stored += taken.stored;
                total.duplicate += taken.duplicate;
                total.dead += taken.dead;
                bar.set_position(lines.consumed());
                let done = total.stored + total.duplicate + total.dead;
                let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
                bar.set_message(format!("{done} events, {rate:.0}/s"));
            }
        }
        if last {
            break;
        }
    }
    bar.finish_and_clear();
    if let Some(rejects) = &mut rejects {
        rejects.flush()?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} stored, {} already there, {bad} bad lines in {seconds:.1} s",
        total.stored, total.duplicate
    );
    if total.dead > 0 {
        println!(
            "{} refused by the store; they are dead letters now: eclusa dlq list",
            total.dead
        );
    }
    Ok(if bad == 0 && total.dead == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn target(settings: Settings, args: &ImportArgs) -> anyhow::Result<ImportTarget> {
    let lock = match args.server.place(&settings)? {
        Place::There(server) => return Ok(ImportTarget::There(server)),
        Place::Here(lock) => lock,
    };
    let store = crate::app::store::open(&settings).await?;
    // Into the store directly, also where there is a broker: an interrupted import is run again.
    let live = LiveSettings::new(direct(settings)?);
    let flow = Flow::start(&live, store, None, Following::default()).await?;
    Ok(ImportTarget::Here {
        flow: Box::new(flow),
        _lock: lock,
    })
}

/// The settings with the broker left out and batches of an import's size.
fn direct(settings: Settings) -> anyhow::Result<Settings> {
    let mut settings = crate::cli::direct(settings)?;
    settings.batch.max_events = settings.batch.max_events.max(CHUNK);
    settings.batch.max_rows = settings.batch.max_rows.max(CHUNK);
    Ok(settings)
}

/// Writes a chunk, and retries while it cannot be written: the ids are the same each time.
async fn hand_over(target: &ImportTarget, events: Vec<Event>) -> anyhow::Result<Written> {
    let flow = match target {
        ImportTarget::There(server) => return remote::send(server, &events).await,
        ImportTarget::Here { flow, .. } => flow,
    };
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        if let Some(written) = write(flow, events.clone()).await? {
            return Ok(written);
        }
        if began.elapsed() > RETRY_FOR {
            bail!("the store could not be written for {RETRY_FOR:?}; run the import again later");
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Through the accumulator and the writers; `None` when some were refused for now.
async fn write(flow: &Flow, events: Vec<Event>) -> anyhow::Result<Option<Written>> {
    let weight = events.iter().map(Event::footprint).sum();
    let permit = flow.budget.take(weight);
    flow.metrics
        .accepted
        .with_label_values(&["import"])
        .inc_by(events.len() as u64);
    let accounts = flow.metrics.accounting.ingest.clone();
    let (deliveries, outcomes) = request::open(events, accounts, permit, None);
    // If the accumulator crashes over the message, the tickets in it answer.
    let push = AccumulatorMessage::push(deliveries);
    let _ = flow.partitions.any().send(push).await;
    let outcomes = outcomes.await.context("an import's chunk was lost")?;
    let mut taken = Written::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Stored => taken.stored += 1,
            Outcome::Duplicate => taken.duplicate += 1,
            Outcome::DeadLettered(_) => taken.dead += 1,
            _ => return Ok(None),
        }
    }
    Ok(Some(taken))
}

fn reject(
    bar: &ProgressBar,
    line: &BadLine,
    bad: u64,
    rejects: Option<&mut BufWriter<File>>,
) -> anyhow::Result<()> {
    if bad <= SHOWN {
        bar.suspend(|| eprintln!("line {}: {}", line.number, line.reason));
    } else if bad == SHOWN + 1 {
        bar.suspend(|| eprintln!("... further bad lines are counted, not shown"));
    }
    if let Some(rejects) = rejects {
        rejects.write_all(&line.text)?;
        rejects.write_all(b"\n")?;
    }
    Ok(())
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {percent:>3} %  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

//! `eclusa events import`

use super::lines::{BadLine, Lines};
use super::remote::{Remote, Taken};
use crate::actors::batch_accumulator::Push;
use crate::app::embedded_lock::{EmbeddedLock, Holder};
use crate::app::flow::Flow;
use crate::config::{LiveSettings, Mode, Settings};
use crate::event::{Event, Outcome, request};
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

/// Events handed over together. Larger than a live batch: nobody waits for a single one.
const CHUNK: usize = 1_000;
/// The same over HTTP, below what a server takes at once by default.
const REMOTE_CHUNK: usize = 500;
/// And both end here, below what a server's largest body is by default.
const CHUNK_BYTES: usize = 512 * 1024;
/// Chunks under way at once.
const UNDER_WAY: usize = 6;
/// Bad lines whose reasons are printed.
const SHOWN: u64 = 20;
/// How long a store that cannot be written is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

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
    /// Send to this server, such as http://127.0.0.1:3000, instead of writing to the store
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// API key for the server
    #[arg(
        long,
        value_name = "KEY",
        env = "ECLUSA_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

/// Where the events go.
enum Target {
    /// Through the actors of this process into the store.
    Here {
        flow: Box<Flow>,
        _lock: Option<EmbeddedLock>,
    },
    /// To a server.
    There(Remote),
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
        Target::Here { .. } => CHUNK,
        Target::There(_) => REMOTE_CHUNK,
    };
    let bar = progress_bar(lines.size);
    let (mut total, mut bad) = (Taken::default(), 0);
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
                let taken: Taken = taken?;
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
            "{} refused by the store and put aside; see eclusa dlq list",
            total.dead
        );
    }
    Ok(if bad == 0 && total.dead == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn target(settings: Settings, args: &ImportArgs) -> anyhow::Result<Target> {
    if let Some(url) = &args.server {
        return Ok(Target::There(Remote::new(url, args.api_key.clone())));
    }
    let mut lock = None;
    if settings.mode() == Mode::Embedded {
        match EmbeddedLock::take(&settings, "")? {
            Holder::Us(taken) => lock = Some(taken),
            Holder::Server(Some(url)) => {
                eprintln!("The server at {url} has the data; sending to it.");
                return Ok(Target::There(Remote::new(&url, args.api_key.clone())));
            }
            Holder::Server(None) => bail!(
                "the data in {} is in use by another command; wait for it to end",
                settings.data_dir.display()
            ),
        }
    }
    let store = crate::app::store::open(&settings).await?;
    // Straight to the store also where there is a broker: an import that is broken off is simply
    // run again.
    let live = LiveSettings::new(direct(settings)?);
    let flow = Flow::start(&live, store)?;
    Ok(Target::Here {
        flow: Box::new(flow),
        _lock: lock,
    })
}

/// The settings with the broker left out and batches of an import's size.
fn direct(settings: Settings) -> anyhow::Result<Settings> {
    let mut settings = crate::cli::direct(settings)?;
    settings.batch.max_events = settings.batch.max_events.max(CHUNK);
    Ok(settings)
}

/// Hands a chunk over, again and again while it cannot be taken: the ids are the same each time.
async fn hand_over(target: &Target, events: Vec<Event>) -> anyhow::Result<Taken> {
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let taken = match target {
            Target::Here { flow, .. } => write(flow, events.clone()).await?,
            Target::There(remote) => {
                if !events.iter().all(Remote::takes) {
                    bail!(
                        "a server takes no events without userId; stop it and import into its \
                         data folder"
                    );
                }
                remote.send(&events).await?
            }
        };
        if let Some(taken) = taken {
            return Ok(taken);
        }
        if began.elapsed() > PATIENCE {
            bail!("the store could not be written for {PATIENCE:?}; run the import again later");
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Through the accumulator and the writers; `None` when some were refused for now.
async fn write(flow: &Flow, events: Vec<Event>) -> anyhow::Result<Option<Taken>> {
    let weight = events.iter().map(Event::footprint).sum();
    let permit = flow.budget.take(weight);
    flow.metrics
        .accepted
        .with_label_values(&["import"])
        .inc_by(events.len() as u64);
    let accounts = flow.metrics.ledgers.intake.clone();
    let (deliveries, outcomes) = request::open(events, accounts, permit, None);
    // If the accumulator crashes over the message, the tickets in it answer.
    let _ = flow.lanes.any().send(Push(deliveries)).await;
    let outcomes = outcomes.await.context("an import's chunk was lost")?;
    let mut taken = Taken::default();
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

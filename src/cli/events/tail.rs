//! `eclusa events tail`

use super::EventFilterArgs;
use crate::cli::{output, table};
use crate::config::Settings;
use crate::event::StoredEvent;
use crate::store::commit_log::{Chunk, Position, ROUND, Selection, Span, TypePatterns};
use crate::store::{EventStore, Store, StoreError};
use crate::supervision::Backoff;
use clap::{Args, ValueEnum};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// How often the log is asked for news.
const LOOK: Duration = Duration::from_millis(250);
/// Seconds within which a server gives a commit its number.
const NUMBERED_BY_A_SERVER: f64 = 1.0;
/// Most events taken at once.
const AT_ONCE: usize = 1_000;

/// Options of `tail`.
#[derive(Args)]
pub struct TailArgs {
    /// Go on with the events that come, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest events to begin with
    #[arg(long, short = 'n', default_value_t = 10, value_name = "NUMBER")]
    lines: usize,
    /// ndjson, or table (the default on a terminal)
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    filter: EventFilterArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Table,
}

/// Prints them, oldest first.
pub async fn run(settings: &Settings, args: TailArgs) -> anyhow::Result<ExitCode> {
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Table
    } else {
        Format::Ndjson
    });
    let store = crate::cli::open_for_reading(settings).await?;
    let filter = args.filter.filter();
    // The position comes before the listing: an event in between is found twice rather than never, and
    // what was shown takes the second one back.
    let (mut position, mut generation) = match args.follow {
        true => (end_of_log(&*store).await?, store.generation().await?),
        false => (Position::START, 0),
    };
    let mut shown = HashSet::new();
    if args.lines > 0 {
        let mut events = newest(&*store, &filter, args.lines).await?;
        events.reverse();
        shown = events.iter().map(|event| event.event_id).collect();
        if !print(&events, format)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let selection = Selection {
        types: TypePatterns::default(),
        filter,
    };
    let mut backoff = Backoff::new(LOOK, Duration::from_secs(5));
    loop {
        match look(&*store, &selection, position).await {
            Ok((chunk, found)) => {
                backoff.reset();
                if found != generation {
                    eprintln!(
                        "eclusa: the database was restored or recovered; going on with what comes from now on"
                    );
                    match end_of_log(&*store).await {
                        Ok(end) => (position, generation) = (end, found),
                        Err(_) => tokio::time::sleep(backoff.next_pause()).await,
                    }
                    continue;
                }
                let moved = chunk.read_to != position;
                position = chunk.read_to;
                let events = chunk.events.into_iter().map(|logged| logged.event);
                let events: Vec<StoredEvent> = events
                    .filter(|event| shown.is_empty() || !shown.remove(&event.event_id))
                    .collect();
                if !print(&events, format)? {
                    return Ok(ExitCode::SUCCESS);
                }
                if !moved {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Err(error) => {
                eprintln!("eclusa: {error}; trying again");
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// The end of the log, when all that is committed has its number.
async fn end_of_log(store: &dyn Store) -> Result<Position, StoreError> {
    loop {
        let numbered = store.number_commits().await?;
        if numbered.commits < ROUND {
            return Ok(numbered.end);
        }
    }
}

/// What has come since, and in which generation of the log.
async fn look(
    store: &dyn Store,
    selection: &Selection,
    after: Position,
) -> Result<(Chunk, i64), StoreError> {
    // A server numbers what is committed at once; none need be running.
    if store.unnumbered().await?.seconds > NUMBERED_BY_A_SERVER {
        store.number_commits().await?;
    }
    let span = Span::after(after, AT_ONCE);
    let chunk = store.read_after(selection, span).await?;
    Ok((chunk, store.generation().await?))
}

/// The newest events, newest first, over as many pages as it takes.
async fn newest(
    store: &dyn EventStore,
    filter: &crate::store::EventFilter,
    lines: usize,
) -> anyhow::Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    let mut before = None;
    while events.len() < lines {
        let limit = (lines - events.len()).min(AT_ONCE);
        let page = store.list(filter, before, limit).await?;
        events.extend(page.events);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    Ok(events)
}

/// `false` when the reader of our output has gone (`| head`), which is no error.
fn print(events: &[StoredEvent], format: Format) -> anyhow::Result<bool> {
    let mut lines = String::new();
    for event in events {
        match format {
            Format::Ndjson => lines.push_str(&serde_json::to_string(event)?),
            Format::Table => lines.push_str(&row(event)),
        }
        lines.push('\n');
    }
    Ok(output::write(&lines)?)
}

fn row(event: &StoredEvent) -> String {
    let text = |value: &Option<String>| table::printable(value.as_deref().unwrap_or("-"));
    format!(
        "{}  {:<24} {:<16} {:<16} {}",
        event.timestamp.format("%Y-%m-%d %H:%M:%S%.3f"),
        table::printable(&event.event_type),
        text(&event.user_id),
        text(&event.session_id),
        table::printable(event.event_data.get()),
    )
}

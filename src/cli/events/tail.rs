//! `eclusa events tail`

use super::subscribe::{self, Wanted};
use crate::cli::server::ServerArgs;
use crate::cli::{output, table};
use crate::config::Settings;
use crate::event::StoredEvent;
use crate::event::schemas::SchemaView;
use crate::http::topics::start::start_at;
use crate::store::commit_log::{Chunk, Position, ROUND, Selection, Span, TypePatterns};
use crate::store::{EventFilter, EventStore, Store, StoreError};
use crate::supervision::Backoff;
use crate::topics::StartAt;
use clap::{Args, ValueEnum};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// How often the log is asked for news.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Seconds within which a server gives a commit its number.
pub(super) const NUMBERED_BY_A_SERVER: f64 = 1.0;
/// Most events taken at once.
pub(super) const AT_ONCE: usize = 1_000;

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
    /// Begin with the first event of the log (beginning), the first one since a time (RFC 3339), or behind a position
    #[arg(
        long,
        value_name = "beginning|now|TIME|POSITION",
        value_parser = start_at,
        conflicts_with_all = ["follow", "lines", "format", "user", "session"]
    )]
    from: Option<StartAt>,
    /// Only this user's
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only this event type; with --from * stands for any characters
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Events as they were sent, or as the newest version of their type's schema has them
    #[arg(long, value_enum, default_value = "sent")]
    schema: SchemaView,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Table,
}

/// Prints them, oldest first.
pub async fn run(settings: &Settings, args: TailArgs) -> anyhow::Result<ExitCode> {
    if let Some(start) = args.from {
        let event_type = args.event_type.as_deref().unwrap_or("*");
        let wanted = Wanted {
            start,
            event_type,
            schema: args.schema,
        };
        return subscribe::run(settings, &args.server, wanted).await;
    }
    if args.server.is_given() {
        anyhow::bail!("--server is for --from; without it the store is read directly");
    }
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Table
    } else {
        Format::Ndjson
    });
    let store = crate::cli::open_for_reading(settings).await?;
    let viewed = |event| settings.event_schemas().viewed(args.schema, event);
    let filter = EventFilter {
        user_id: args.user,
        event_type: args.event_type,
        session_id: args.session,
        ..EventFilter::default()
    };
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
        let events: Vec<StoredEvent> = events.into_iter().map(viewed).collect();
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
                let events = chunk.events.into_iter().map(|logged| viewed(logged.event));
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
pub(super) async fn end_of_log(store: &dyn Store) -> Result<Position, StoreError> {
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
    filter: &EventFilter,
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

//! `eclusa events`

mod count;
mod import;
mod lines;
mod remote;
mod subscribe;
mod tail;

use super::GlobalArgs;
use crate::logging;
use crate::store::EventFilter;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Commands for events.
#[derive(Subcommand)]
pub enum EventsCommand {
    /// Import events from a file: one JSON object a line, plain or gzip; - is standard input
    ///
    /// Running it again stores nothing twice: a line without an id gets one derived from the producer,
    /// the source's name, the line's number and its text. While a server holds the embedded mode's
    /// file, the events go through that server; with API keys the key's name is then the producer.
    Import(import::ImportArgs),
    /// Print the newest events, and with --follow those that come
    ///
    /// With --from it prints all events of the log behind a place, and then those that come, until interrupted: a line of
    /// JSON for each, with its position. While a server holds the embedded mode's file, or with --server, they come
    /// through the server, and it goes on by itself when the connection is lost.
    Tail(tail::TailArgs),
    /// Count events by type, source or user
    Count(count::CountArgs),
}

/// Filters of events; those that are not given do not filter.
#[derive(Args, Clone, Default)]
pub struct EventFilterArgs {
    /// Only this user's
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only what happened at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Only what happened before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
}

impl EventFilterArgs {
    fn filter(&self) -> EventFilter {
        EventFilter {
            user_id: self.user.clone(),
            event_type: self.event_type.clone(),
            session_id: self.session.clone(),
            from: self.from,
            to: self.to,
        }
    }
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: EventsCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    crate::cli::block_on(async move {
        match command {
            EventsCommand::Import(args) => import::run(settings, args).await,
            EventsCommand::Tail(args) => tail::run(&settings, args).await,
            EventsCommand::Count(args) => count::run(&settings, args).await,
        }
    })
}

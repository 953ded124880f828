//! `eclusa events`

mod count;
mod import;
mod lines;
mod remote;
mod tail;

use super::GlobalArgs;
use crate::config::Settings;
use crate::store::EventFilter;
use crate::{app, logging};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// What to do with events.
#[derive(Subcommand)]
pub enum EventsCommand {
    /// Import events from a file: one JSON object a line, plain or gzip; - is standard input
    ///
    /// Running it again stores nothing twice: a line without an id gets one made of the source's
    /// name, the line's number and its text. While a server has the embedded mode's file, the
    /// events go through that server.
    Import(import::ImportArgs),
    /// Print the newest events, and with --follow those that come
    Tail(tail::TailArgs),
    /// Count events by type, source or user
    Count(count::CountArgs),
}

/// Which events; parts that are not given do not filter.
#[derive(Args, Clone, Default)]
pub struct FilterArgs {
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

impl FilterArgs {
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

/// Does it.
pub fn run(global: &GlobalArgs, command: EventsCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            EventsCommand::Import(args) => import::run(settings, args).await,
            EventsCommand::Tail(args) => tail::run(&settings, args).await,
            EventsCommand::Count(args) => count::run(&settings, args).await,
        }
    })
}

/// The store for reading: tables as they are, so that a look changes nothing.
async fn open_for_reading(
    settings: &Settings,
) -> anyhow::Result<std::sync::Arc<dyn crate::store::EventStore>> {
    let mut settings = settings.clone();
    settings.store.migrate = false;
    Ok(app::store::open(&settings).await?)
}

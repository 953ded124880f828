//! `eclusa dlq`

mod export;
mod list;
mod purge;
mod replay;
mod server;
mod show;

use super::GlobalArgs;
use crate::app::embedded_lock::{EmbeddedLock, Holder};
use crate::config::{Mode, Settings};
use crate::event::Cause;
use crate::store::Store;
use crate::store::dead_letters::{LetterFilter, LetterState};
use crate::{app, logging};
use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use server::Server;
use std::process::ExitCode;
use std::sync::Arc;
use uuid::Uuid;

/// What to do with dead letters.
#[derive(Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first
    List(list::ListArgs),
    /// Show a dead letter: its failures, headers and bytes
    Show(show::ShowArgs),
    /// Send dead letters through the flow again, oldest first
    ///
    /// Those that fail again stay, with their history. Interrupting it and running it again loses
    /// and doubles nothing. While a server has the embedded mode's file, that server does it.
    Replay(replay::ReplayArgs),
    /// Delete dead letters for good
    Purge(purge::PurgeArgs),
    /// Write dead letters as one JSON object a line
    Export(export::ExportArgs),
}

/// Which letters; parts that are not given do not filter.
#[derive(Args, Clone, Default)]
pub struct FilterArgs {
    /// Only with this cause, such as poison or malformed
    #[arg(long, value_parser = cause)]
    cause: Option<String>,
    /// Only of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only those that failed last at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Only those that failed last before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<LetterState>,
}

/// Where a change is made.
#[derive(Args, Clone, Default)]
pub struct ServerArgs {
    /// Have this server do it, such as http://127.0.0.1:3000, instead of using the store
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// API key for the server; it needs the scope admin
    #[arg(
        long,
        value_name = "KEY",
        env = "ECLUSA_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

fn cause(word: &str) -> Result<String, String> {
    if Cause::parse(word).is_some() {
        return Ok(word.to_owned());
    }
    let known = Cause::ALL.map(Cause::as_str).join(", ");
    Err(format!("must be one of {known}"))
}

impl FilterArgs {
    fn filter(&self, ids: &[Uuid]) -> LetterFilter {
        LetterFilter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            cause: self.cause.clone(),
            event_type: self.event_type.clone(),
            from: self.from,
            to: self.to,
            state: self.state,
        }
    }
}

/// Who makes a change.
enum Place {
    /// This process, in the store; the lock keeps others out meanwhile.
    Here(Option<EmbeddedLock>),
    /// A server.
    There(Server),
}

/// Does it.
pub fn run(global: &GlobalArgs, command: DlqCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            DlqCommand::List(args) => list::run(&settings, args).await,
            DlqCommand::Show(args) => show::run(&settings, args).await,
            DlqCommand::Replay(args) => replay::run(settings, args).await,
            DlqCommand::Purge(args) => purge::run(settings, args).await,
            DlqCommand::Export(args) => export::run(&settings, args).await,
        }
    })
}

/// The store for reading: tables as they are, so that a look changes nothing.
async fn open_for_reading(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let mut settings = settings.clone();
    settings.store.migrate = false;
    app::store::open(&settings).await
}

impl ServerArgs {
    /// The server named, or the one that has the embedded mode's file, or this process.
    fn place(&self, settings: &Settings) -> anyhow::Result<Place> {
        let server = |url: &str| Place::There(Server::new(url, self.api_key.clone()));
        if let Some(url) = &self.server {
            return Ok(server(url));
        }
        if settings.mode() != Mode::Embedded {
            return Ok(Place::Here(None));
        }
        match EmbeddedLock::take(settings, "")? {
            Holder::Us(lock) => Ok(Place::Here(Some(lock))),
            Holder::Server(Some(url)) => {
                eprintln!("The server at {url} has the data; it does the work.");
                Ok(server(&url))
            }
            Holder::Server(None) => bail!(
                "the data in {} is in use by another command; wait for it to end",
                settings.data_dir.display()
            ),
        }
    }
}

fn progress_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

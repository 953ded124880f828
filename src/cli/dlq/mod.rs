//! `eclusa dlq`

mod export;
mod list;
mod purge;
mod remote;
mod replay;
mod show;

use super::GlobalArgs;
use crate::event::Cause;
use crate::logging;
use crate::store::dead_letters::{DeadLetterFilter, DeadLetterState};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use uuid::Uuid;

/// Commands for dead letters.
#[derive(Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first
    List(list::ListArgs),
    /// Show a dead letter: its failures, headers and bytes
    Show(show::ShowArgs),
    /// Send dead letters through the flow again, oldest first
    ///
    /// Those that fail again stay, with their history. An interrupted replay can be run again:
    /// nothing is lost or stored twice. While a server holds the embedded mode's file, that server
    /// replays.
    Replay(replay::ReplayArgs),
    /// Delete dead letters for good
    Purge(purge::PurgeArgs),
    /// Write dead letters as one JSON object a line
    Export(export::ExportArgs),
}

/// Filters of dead letters; those that are not given do not filter.
#[derive(Args, Clone, Default)]
pub struct DeadLetterFilterArgs {
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
    state: Option<DeadLetterState>,
}

fn cause(word: &str) -> Result<String, String> {
    if Cause::parse(word).is_some() {
        return Ok(word.to_owned());
    }
    let known = Cause::ALL.map(Cause::as_str).join(", ");
    Err(format!("must be one of {known}"))
}

impl DeadLetterFilterArgs {
    fn filter(&self, ids: &[Uuid]) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            cause: self.cause.clone(),
            event_type: self.event_type.clone(),
            from: self.from,
            to: self.to,
            state: self.state,
        }
    }
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: DlqCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    crate::cli::block_on(async move {
        match command {
            DlqCommand::List(args) => list::run(&settings, args).await,
            DlqCommand::Show(args) => show::run(&settings, args).await,
            DlqCommand::Replay(args) => replay::run(settings, args).await,
            DlqCommand::Purge(args) => purge::run(settings, args).await,
            DlqCommand::Export(args) => export::run(&settings, args).await,
        }
    })
}

//! `eclusa reactions`

mod change;
mod list;
mod reprocess;
mod runs;
mod show;

use super::GlobalArgs;
use super::server::ServerArgs;
use crate::logging;
use crate::reactions::runs::{RunId, RunStatus};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Commands for reactions and their runs.
#[derive(Subcommand)]
pub enum ReactionsCommand {
    /// List reactions: their state, lag and numbers of runs
    List(list::ListArgs),
    /// List the runs of a reaction, those of the newest events first
    Runs(runs::RunsArgs),
    /// Show a reaction, or a run with its attempts
    Show(show::ShowArgs),
    /// Make runs that have ended again, those of the oldest events first
    ///
    /// Those that have failed, unless --status says otherwise. Each gets as many attempts as before. An interrupted
    /// command can be run again: what it has done is no longer failed. While a server holds the embedded mode's file,
    /// that server does the work.
    Reprocess(reprocess::ReprocessArgs),
    /// Start no further attempts of a reaction
    Pause(NameArgs),
    /// Have a reaction go on that is paused, broken or gapped
    Resume(NameArgs),
    /// Cancel a run that was not started, or that waits for its next attempt
    Cancel {
        /// The run: the event's id, a dot, and the reaction's name
        #[arg(value_name = "RUN")]
        id: RunId,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Forget a reaction that no process runs, with its runs
    Remove(NameArgs),
}

#[derive(Args)]
pub struct NameArgs {
    /// The reaction's name
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: ReactionsCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            ReactionsCommand::List(args) => list::run(&settings, args).await,
            ReactionsCommand::Runs(args) => runs::run(&settings, args).await,
            ReactionsCommand::Show(args) => show::run(&settings, &args).await,
            ReactionsCommand::Reprocess(args) => reprocess::run(&settings, args).await,
            ReactionsCommand::Pause(args) => change::pause(&settings, args, true).await,
            ReactionsCommand::Resume(args) => change::pause(&settings, args, false).await,
            ReactionsCommand::Cancel { id, server } => {
                change::cancel(&settings, &id, &server).await
            }
            ReactionsCommand::Remove(args) => change::remove(&settings, args).await,
        }
    })
}

fn unknown(name: &str) -> String {
    format!("there is no reaction {name}; `eclusa reactions list` shows all")
}

fn run_status(word: &str) -> Result<RunStatus, String> {
    RunStatus::parse(&word.to_ascii_uppercase()).ok_or_else(|| {
        let known = RunStatus::ALL.map(RunStatus::as_str).join(", ");
        format!("must be one of {known}")
    })
}

//! The command line.

#[cfg(feature = "bench")]
pub mod bench;
pub mod capture;
pub mod config;
pub mod dlq;
pub mod events;
pub mod followers;
pub mod migrate;
mod output;
mod progress;
pub mod reactions;
pub mod schemas;
pub mod serve;
mod server;
pub mod streams;
mod table;

use crate::app;
use crate::config::broker::BrokerSettings;
use crate::config::{Mode, Settings, Sources};
use crate::store::Store;
use crate::store::followers::Commanded;
use anyhow::bail;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Event processor: accepts events over HTTP and AMQP, durable before the response, writes them in
/// batches to PostgreSQL or SQLite, and stores each event id once.
///
/// Without a command it serves. Without settings it serves on 127.0.0.1:3000 and keeps its events
/// in a SQLite file under ./data.
#[derive(Parser)]
#[command(name = "eclusa", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Default)]
pub struct GlobalArgs {
    /// Settings file; ./eclusa.toml is read when it exists
    #[arg(long, short, global = true, env = "ECLUSA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one setting, such as --set batch.max_events=500 (may be repeated)
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Log filter, such as debug or warn,eclusa=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

impl GlobalArgs {
    /// The settings' sources, with further flags of a command.
    fn sources(&self, flags: Vec<(String, String)>) -> Sources {
        let mut all = self.set.clone();
        all.extend(flags);
        if let Some(filter) = &self.log {
            all.push(("log.filter".to_owned(), filter.clone()));
        }
        Sources::from_process(self.config.clone(), all)
    }

    /// For commands with a progress bar, which the log lines of batches would break; --log brings
    /// them back.
    fn quiet(&self) -> Vec<(String, String)> {
        if self.log.is_none() && std::env::var_os("ECLUSA_LOG").is_none() {
            vec![("log.filter".to_owned(), "warn".to_owned())]
        } else {
            Vec::new()
        }
    }
}

/// The settings without the broker, for a command that works on the store directly.
fn direct(mut settings: Settings) -> anyhow::Result<Settings> {
    if settings.mode() == Mode::Full {
        let defaults = Sources::from_text("").load()?;
        settings.broker = BrokerSettings {
            missing_id: settings.broker.missing_id,
            ..defaults.broker
        };
        settings.set_mode(Mode::Database);
    }
    Ok(settings)
}

/// Opens the store for reading, without migrating it: a query changes nothing.
async fn open_for_reading(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let mut settings = settings.clone();
    settings.store.migrate = false;
    app::store::open(&settings).await
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "must be KEY=VALUE, such as batch.max_events=500".to_owned())
}

#[derive(Subcommand)]
enum Command {
    /// Take events and write them (the default)
    Serve(serve::ServeArgs),
    /// Bring the store's tables up to date, and end
    Migrate,
    /// Check, show or print settings; make API keys
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Import, follow and count events
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Show captures, take new snapshots, and drop slots
    #[command(subcommand)]
    Capture(capture::CaptureCommand),
    /// List the streams that collectors pull, and end sessions of collectors
    #[command(subcommand)]
    Streams(streams::StreamsCommand),
    /// List the schemas of event types, and check that their versions are compatible
    #[command(subcommand)]
    Schemas(schemas::SchemasCommand),
    /// List followers of the log, and pause, resume, rebuild or skip them
    #[command(subcommand)]
    Followers(followers::FollowersCommand),
    /// List reactions and their runs; make runs again, pause, resume and cancel them
    #[command(subcommand)]
    Reactions(reactions::ReactionsCommand),
    /// List, show, replay, purge and export dead letters
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Measure what this machine can do with Eclusa, and verify that nothing is lost
    #[cfg(feature = "bench")]
    Bench(eclusa_bench::BenchArgs),
    /// The bare handler that bench compares with
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchHandler(eclusa_bench::HandlerArgs),
    /// Print completions for a shell: eclusa completions bash > /etc/bash_completion.d/eclusa
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // Without a command these are the options of `serve`; before another one they would be ignored.
    if let (Some(_), Some(option)) = (&cli.command, cli.serve.given()) {
        let message = format!(
            "{option} before a command has no effect: give it after `serve`, or use --set, such as \
             --set data_dir=DIR"
        );
        Cli::command()
            .error(clap::error::ErrorKind::ArgumentConflict, message)
            .exit();
    }
    let result = match cli.command {
        None => serve::run(&cli.global, &cli.serve),
        Some(Command::Serve(args)) => serve::run(&cli.global, &args),
        Some(Command::Migrate) => migrate::run(&cli.global),
        Some(Command::Config(command)) => config::run(&cli.global, command),
        Some(Command::Events(command)) => events::run(&cli.global, command),
        Some(Command::Followers(command)) => followers::run(&cli.global, command),
        Some(Command::Capture(command)) => capture::run(&cli.global, command),
        Some(Command::Streams(command)) => streams::run(&cli.global, command),
        Some(Command::Schemas(command)) => schemas::run(&cli.global, command),
        Some(Command::Reactions(command)) => reactions::run(&cli.global, command),
        Some(Command::Dlq(command)) => dlq::run(&cli.global, command),
        #[cfg(feature = "bench")]
        Some(Command::Bench(args)) => bench::run(&cli.global, args),
        #[cfg(feature = "bench")]
        Some(Command::BenchHandler(args)) => bench::run_handler(args),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "eclusa", &mut script);
            output::write(&String::from_utf8_lossy(&script))
                .map(|_| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("eclusa: {error:#}");
        ExitCode::FAILURE
    })
}

/// What a command to the store has come to.
fn obeyed(commanded: Commanded, unknown: impl FnOnce() -> String) -> anyhow::Result<()> {
    match commanded {
        Commanded::Done => Ok(()),
        Commanded::Unknown => bail!(unknown()),
        Commanded::Refused(reason) => bail!(reason),
    }
}

/// Runs a future on actix's runtime, which actors need.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_work_with_and_without_the_command() {
        let cli = Cli::parse_from(["eclusa", "--port", "4000", "--set", "batch.max_events=7"]);
        assert_eq!(cli.serve.port, Some(4000));
        assert_eq!(
            cli.global.set,
            [("batch.max_events".to_owned(), "7".to_owned())]
        );
        let cli = Cli::parse_from(["eclusa", "serve", "--port", "4000", "--log", "debug"]);
        assert!(matches!(cli.command, Some(Command::Serve(args)) if args.port == Some(4000)));
    }
}

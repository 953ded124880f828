//! `eclusa followers`

use super::GlobalArgs;
use super::server::{Place, ServerArgs};
use super::table::{print_line, printable};
use crate::config::Settings;
use crate::http::followers::view::{Behind, FollowerView, OutsidePosition};
use crate::logging;
use crate::store::followers::{FollowerCommand, FollowerRecord};
use crate::store::{CommitLog, FollowerStore, Store, StoreError};
use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// Commands for followers of the log.
#[derive(Subcommand)]
pub enum FollowersCommand {
    /// List followers: their state, position and lag
    List(ListArgs),
    /// Show a follower
    Show {
        /// Its name
        name: String,
    },
    /// Stop a follower after the chunk in hand
    Pause(NameArgs),
    /// Have a follower that is paused, broken or gapped go on from its position
    Resume(NameArgs),
    /// Have a follower forget all that it has applied, and begin again with the first event of the log
    Rebuild(RebuildArgs),
    /// Have a follower go on behind a position, without the events up to it
    Skip(SkipArgs),
    /// Forget a follower that no process runs
    Remove(NameArgs),
    /// Say that the database was taken back to an earlier state: positions shown before are refused
    ///
    /// PostgreSQL finds a restored cluster, a promoted replica and a loaded dump by itself. A copied
    /// SQLite file, and a table restored in place, it does not.
    NewGeneration,
}

#[derive(Args)]
pub struct ListArgs {
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct NameArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
pub struct RebuildArgs {
    #[command(flatten)]
    follower: NameArgs,
    /// Also if the retention has removed events; the follower is then complete from a day on
    #[arg(long)]
    accept_truncated: bool,
}

#[derive(Args)]
pub struct SkipArgs {
    #[command(flatten)]
    follower: NameArgs,
    /// The position, such as 1-8191
    #[arg(long, value_name = "POSITION")]
    to: OutsidePosition,
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: FollowersCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            FollowersCommand::List(args) => list(&settings, args.json).await,
            FollowersCommand::Show { name } => show(&settings, &name).await,
            FollowersCommand::Pause(follower) => {
                change(settings, follower, FollowerCommand::Pause, "paused").await
            }
            FollowersCommand::Resume(follower) => {
                change(settings, follower, FollowerCommand::Resume, "resumed").await
            }
            FollowersCommand::Rebuild(args) => {
                let rebuild = FollowerCommand::Rebuild {
                    accept_truncated: args.accept_truncated,
                };
                change(settings, args.follower, rebuild, "will be rebuilt").await
            }
            FollowersCommand::Skip(args) => skip(settings, args).await,
            FollowersCommand::Remove(follower) => {
                change(settings, follower, FollowerCommand::Remove, "removed").await
            }
            FollowersCommand::NewGeneration => new_generation(settings).await,
        }
    })
}

async fn list(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let store = super::open_for_reading(settings).await?;
    let generation = store.generation().await?;
    let records = store.followers().await?;
    if records.is_empty() && !json {
        println!("No follower was ever declared here.");
    }
    for record in records {
        let follower = view(&*store, record, generation).await?;
        let line = match json {
            true => serde_json::to_string(&follower)?,
            false => row(&follower),
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(settings: &Settings, name: &str) -> anyhow::Result<ExitCode> {
    let store = super::open_for_reading(settings).await?;
    let Some(record) = store.follower(name).await? else {
        bail!(unknown(name));
    };
    let generation = store.generation().await?;
    let follower = view(&*store, record, generation).await?;
    print_line(&serde_json::to_string_pretty(&follower)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn view(
    store: &dyn Store,
    record: FollowerRecord,
    generation: i64,
) -> Result<FollowerView, StoreError> {
    let (events, seconds) = store.backlog(record.position).await?;
    Ok(FollowerView::new(
        record,
        generation,
        Behind { events, seconds },
    ))
}

fn row(follower: &FollowerView) -> String {
    let run_by = follower.run_by.as_deref().unwrap_or("no process");
    let reason = follower.reason.as_deref().map(|why| format!("  {why}"));
    format!(
        "{:<24} {:<8} at {:<16} {} behind ({:.1} s)  run by {}{}",
        printable(&follower.name),
        follower.state.as_str(),
        follower.position,
        follower.behind.events,
        follower.behind.seconds,
        printable(run_by),
        printable(&reason.unwrap_or_default()),
    )
}

fn unknown(name: &str) -> String {
    format!("there is no follower {name}; `eclusa followers list` shows all")
}

async fn skip(settings: Settings, args: SkipArgs) -> anyhow::Result<ExitCode> {
    if let Place::There(server) = args.follower.server.place(&settings)? {
        let body = json!({"to": args.to.to_string()}).to_string();
        let path = format!("/v1/followers/{}/skip", args.follower.name);
        let _: FollowerView = server.post(&path, body.as_bytes()).await?;
    } else {
        let store = crate::app::store::open(&settings).await?;
        let generation = store.generation().await?;
        if generation != args.to.generation {
            bail!(
                "position {} belongs to generation {} of the log, and this is generation {generation}",
                args.to,
                args.to.generation
            );
        }
        carry_out(
            &*store,
            &args.follower.name,
            FollowerCommand::Skip(args.to.position),
        )
        .await?;
    }
    println!("{} goes on behind {}", args.follower.name, args.to);
    Ok(ExitCode::SUCCESS)
}

/// Has a command carried out, here or by a server, and says that it `is` done.
async fn change(
    settings: Settings,
    follower: NameArgs,
    command: FollowerCommand,
    is: &str,
) -> anyhow::Result<ExitCode> {
    let name = &follower.name;
    let place = follower.server.place(&settings)?;
    if let Place::There(server) = &place {
        let (action, body) = match command {
            FollowerCommand::Pause => ("pause", json!({})),
            FollowerCommand::Resume => ("resume", json!({})),
            FollowerCommand::Rebuild { accept_truncated } => {
                ("rebuild", json!({"acceptTruncated": accept_truncated}))
            }
            FollowerCommand::Remove => ("remove", json!({})),
            FollowerCommand::Skip(to) => bail!("a skip to {to} needs its generation"),
        };
        let path = format!("/v1/followers/{name}/{action}");
        let _: serde_json::Value = server.post(&path, body.to_string().as_bytes()).await?;
    } else {
        let store = crate::app::store::open(&settings).await?;
        carry_out(&*store, name, command).await?;
    }
    println!("{name} {is}");
    Ok(ExitCode::SUCCESS)
}

async fn carry_out(store: &dyn Store, name: &str, command: FollowerCommand) -> anyhow::Result<()> {
    let done = FollowerStore::command(store, name, command).await?;
    super::obeyed(done, || unknown(name))
}

async fn new_generation(settings: Settings) -> anyhow::Result<ExitCode> {
    let Place::Here(_lock) = ServerArgs::default().place(&settings)? else {
        bail!("a server has the data; stop it first");
    };
    let store = crate::app::store::open(&settings).await?;
    let generation = CommitLog::new_generation(&*store).await?;
    println!("this is generation {generation} of the log");
    Ok(ExitCode::SUCCESS)
}

//! `eclusa capture`

use super::GlobalArgs;
use super::server::{Place, ServerArgs};
use super::table::{print_line, printable};
use crate::capture::commands::{Asked, drop_slot, resnapshot};
use crate::config::Settings;
use crate::http::captures::view::{CaptureList, CaptureView};
use crate::http::streams::collect::escaped;
use crate::logging;
use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// Commands for captures.
#[derive(Subcommand)]
pub enum CaptureCommand {
    /// Show the captures: what they do, their slots, and their snapshots
    Status(StatusArgs),
    /// Have the rows of tables read again; a capture that has stopped begins again with a new slot
    Resnapshot(ResnapshotArgs),
    /// Have a capture drop its slot on the captured server, and its own publication, and stop
    DropSlot(CaptureArgs),
}

#[derive(Args)]
pub struct StatusArgs {
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
pub struct CaptureArgs {
    /// The capture's name
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
pub struct ResnapshotArgs {
    /// The capture's name
    name: String,
    /// Tables with their schemas, such as public.product; all unless given
    tables: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: CaptureCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            CaptureCommand::Status(args) => status(&settings, &args).await,
            CaptureCommand::Resnapshot(args) => again(&settings, &args).await,
            CaptureCommand::DropSlot(args) => drop_its_slot(&settings, &args).await,
        }
    })
}

async fn status(settings: &Settings, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let captures = match &args.server.place(settings)? {
        Place::There(server) => server.get::<CaptureList>("/v1/captures").await?.captures,
        _ => {
            eprintln!("This is what the store has; --server URL shows what a server does.");
            let rows = super::open_for_reading(settings).await?.captures().await?;
            let views = rows.into_iter().map(|row| CaptureView::new(row, None));
            views.collect::<Result<_, _>>()?
        }
    };
    if captures.is_empty() && !args.json {
        println!("No capture has begun here.");
    }
    for capture in captures {
        let line = match args.json {
            true => serde_json::to_string(&capture)?,
            false => row(&capture)?,
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(capture: &CaptureView) -> anyhow::Result<String> {
    let state = serde_json::to_value(capture.state)?;
    let state = state.as_str().unwrap_or_default();
    let position = capture.position.as_deref().unwrap_or("-");
    let read = capture
        .tables
        .iter()
        .filter(|table| table.done_at.is_some());
    let begun = match &capture.slot {
        Some(slot) => format!(
            "at {position}, slot {}, {} of {} tables read",
            printable(slot),
            read.count(),
            capture.tables.len(),
        ),
        None => "not begun".to_owned(),
    };
    let mut line = format!("{:<24} {state:<9} {begun}", printable(&capture.name));
    if let Some(slot) = &capture.slot_state {
        line += &format!(", {} bytes behind, {}", slot.lag_bytes, slot.wal_status);
    }
    for text in [&capture.reason, &capture.alarm].into_iter().flatten() {
        line += &format!("\n  {}", printable(text));
    }
    Ok(line)
}

async fn again(settings: &Settings, args: &ResnapshotArgs) -> anyhow::Result<ExitCode> {
    let (name, tables) = (&args.name, &args.tables);
    // Kept to the end, since it may hold the lock of the file.
    let done_by = args.server.place(settings)?;
    if let Place::There(server) = &done_by {
        let path = format!("/v1/captures/{}/resnapshot", escaped(name));
        let body = json!({ "tables": tables }).to_string();
        let _: CaptureView = server.post(&path, body.as_bytes()).await?;
    } else {
        let store = crate::app::store::open(settings).await?;
        check(resnapshot(&*store, name, tables).await?, name)?;
    }
    println!("a new snapshot is asked for; `eclusa capture status` shows how far it is");
    Ok(ExitCode::SUCCESS)
}

async fn drop_its_slot(settings: &Settings, args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    let done_by = args.server.place(settings)?;
    if let Place::There(server) = &done_by {
        let path = format!("/v1/captures/{}/drop-slot", escaped(name));
        let _: CaptureView = server.post(&path, b"{}").await?;
    } else {
        let store = crate::app::store::open(settings).await?;
        check(drop_slot(&*store, name).await?, name)?;
    }
    println!("the process that runs the capture {name} drops its slot, and stops it");
    if !settings.captures.iter().any(|one| one.name == *name) {
        println!(
            "the settings here do not declare it; if those of no process do, declare it again, or drop the slot on its \
             server: `eclusa capture status` names it"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn check(asked: Asked, name: &str) -> anyhow::Result<()> {
    match asked {
        Asked::Done => Ok(()),
        Asked::Unknown => bail!("there is no capture {name}; `eclusa capture status` shows all"),
        Asked::UnknownTable(table) => bail!("the capture {name} has no table {table}"),
    }
}

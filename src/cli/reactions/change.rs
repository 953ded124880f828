//! `eclusa reactions pause`, `resume`, `cancel` and `remove`

use super::{NameArgs, unknown};
use crate::cli::server::{Place, ServerArgs};
use crate::config::Settings;
use crate::reactions::runs::{RunId, cancel as cancel_run};
use crate::store::followers::Commanded;
use anyhow::bail;
use std::process::ExitCode;

/// Pauses a reaction, or has it go on.
pub async fn pause(settings: &Settings, args: NameArgs, paused: bool) -> anyhow::Result<ExitCode> {
    let name = args.name.as_str();
    let place = args.server.place(settings)?;
    let (action, is) = match paused {
        true => ("pause", "paused"),
        false => ("resume", "resumed"),
    };
    if let Place::There(server) = &place {
        server
            .command(&format!("/v1/reactions/{name}/{action}"))
            .await?;
    } else {
        let store = crate::app::store::open(settings).await?;
        obeyed(store.pause_reaction(name, paused).await?, || unknown(name))?;
    }
    println!("{name} {is}");
    Ok(ExitCode::SUCCESS)
}

/// Forgets a reaction.
pub async fn remove(settings: &Settings, args: NameArgs) -> anyhow::Result<ExitCode> {
    let name = args.name.as_str();
    let place = args.server.place(settings)?;
    if let Place::There(server) = &place {
        server
            .command(&format!("/v1/reactions/{name}/remove"))
            .await?;
    } else {
        let store = crate::app::store::open(settings).await?;
        obeyed(store.remove_reaction(name).await?, || unknown(name))?;
    }
    println!("{name} removed");
    Ok(ExitCode::SUCCESS)
}

/// Cancels a run.
pub async fn cancel(
    settings: &Settings,
    id: &RunId,
    server: &ServerArgs,
) -> anyhow::Result<ExitCode> {
    let place = server.place(settings)?;
    if let Place::There(server) = &place {
        server.command(&format!("/v1/runs/{id}/cancel")).await?;
    } else {
        let store = crate::app::store::open(settings).await?;
        obeyed(cancel_run(&*store, id).await?, || {
            format!("there is no run {id}; `eclusa reactions runs` lists them")
        })?;
    }
    println!("{id} cancelled");
    Ok(ExitCode::SUCCESS)
}

fn obeyed(commanded: Commanded, unknown: impl FnOnce() -> String) -> anyhow::Result<()> {
    match commanded {
        Commanded::Done => Ok(()),
        Commanded::Unknown => bail!(unknown()),
        Commanded::Refused(reason) => bail!(reason),
    }
}

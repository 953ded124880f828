//! `eclusa reactions pause`, `resume`, `cancel` and `remove`

use super::{NameArgs, unknown};
use crate::cli::obeyed;
use crate::cli::server::{Place, ServerArgs};
use crate::config::Settings;
use crate::reactions::runs::{RunId, cancel as cancel_run};
use crate::store::followers::Commanded;
use crate::store::{Store, StoreError};
use std::process::ExitCode;

/// Pauses a reaction, or has it go on.
pub async fn pause(settings: &Settings, args: NameArgs, paused: bool) -> anyhow::Result<ExitCode> {
    let name = args.name.as_str();
    let (action, is) = match paused {
        true => ("pause", "paused"),
        false => ("resume", "resumed"),
    };
    let path = format!("/v1/reactions/{name}/{action}");
    let here = async |store: &dyn Store| store.pause_reaction(name, paused).await;
    change(settings, &args.server, &path, here, || unknown(name)).await?;
    println!("{name} {is}");
    Ok(ExitCode::SUCCESS)
}

/// Forgets a reaction.
pub async fn remove(settings: &Settings, args: NameArgs) -> anyhow::Result<ExitCode> {
    let name = args.name.as_str();
    let path = format!("/v1/reactions/{name}/remove");
    let here = async |store: &dyn Store| store.remove_reaction(name).await;
    change(settings, &args.server, &path, here, || unknown(name)).await?;
    println!("{name} removed");
    Ok(ExitCode::SUCCESS)
}

/// Cancels a run.
pub async fn cancel(
    settings: &Settings,
    id: &RunId,
    server: &ServerArgs,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/runs/{id}/cancel");
    let here = async |store: &dyn Store| cancel_run(store, id).await;
    change(settings, server, &path, here, || {
        format!("there is no run {id}; `eclusa reactions runs` lists them")
    })
    .await?;
    println!("{id} cancelled");
    Ok(ExitCode::SUCCESS)
}

/// Has a command carried out, here or by a server.
async fn change(
    settings: &Settings,
    server: &ServerArgs,
    path: &str,
    here: impl AsyncFnOnce(&dyn Store) -> Result<Commanded, StoreError>,
    unknown: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let place = server.place(settings)?;
    if let Place::There(server) = &place {
        return server.command(path).await;
    }
    let store = crate::app::store::open(settings).await?;
    obeyed(here(&*store).await?, unknown)
}

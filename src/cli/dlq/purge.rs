//! `eclusa dlq purge`

use super::{DeadLetterFilterArgs, remote};
use crate::cli::progress::progress_bar;
use crate::cli::server::{Place, ServerArgs};
use crate::config::Settings;
use crate::dead_letters::purge::purge;
use crate::store::DeadLetterStore;
use crate::store::dead_letters::DeadLetterFilter;
use anyhow::bail;
use clap::Args;
use std::process::ExitCode;
use uuid::Uuid;

/// Options of `purge`.
#[derive(Args)]
pub struct PurgeArgs {
    /// Only these dead letters
    ids: Vec<Uuid>,
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// All of them, whatever their state
    #[arg(long)]
    all: bool,
    /// At most this many, oldest first
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Say how many would be deleted, and delete none
    #[arg(long)]
    dry_run: bool,
    /// Delete without asking; it never asks, it refuses without this
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Deletes, and prints how many.
pub async fn run(settings: Settings, args: PurgeArgs) -> anyhow::Result<ExitCode> {
    let filter = args.filter.filter(&args.ids);
    if filter == DeadLetterFilter::default() && !args.all {
        bail!(
            "say which dead letters to delete: ids, --cause, --type, --from, --to or --state; or --all"
        );
    }
    if !args.yes && !args.dry_run {
        bail!("this deletes dead letters for good; look with --dry-run, then give --yes");
    }
    let limit = args.limit.unwrap_or(u64::MAX);
    if args.dry_run {
        let store = crate::cli::open_for_reading(&settings).await?;
        let matching = store.count_letters(&filter).await?;
        println!("{} would be deleted", matching.min(limit));
        return Ok(ExitCode::SUCCESS);
    }
    let purged = match args.server.place(&settings)? {
        Place::There(server) => remote::purge(&server, &filter, limit).await?,
        Place::Here(_lock) => {
            let store = crate::app::store::open(&settings).await?;
            let bar = progress_bar(store.count_letters(&filter).await?.min(limit));
            let store: &dyn DeadLetterStore = &*store;
            let purged = purge(store, &filter, limit, |purged| bar.set_position(purged)).await?;
            bar.finish_and_clear();
            purged
        }
    };
    println!("{purged} deleted");
    Ok(ExitCode::SUCCESS)
}

//! `eclusa reactions list`

use crate::cli::table::{print_line, printable};
use crate::config::Settings;
use crate::http::reactions::view::ReactionView;
use crate::reactions::runs::overviews;
use clap::Args;
use std::process::ExitCode;

/// Options of `list`.
#[derive(Args)]
pub struct ListArgs {
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the reactions.
pub async fn run(settings: &Settings, args: ListArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let reactions = overviews(&*store).await?;
    if reactions.is_empty() && !args.json {
        println!("No reaction was ever declared here.");
    }
    for reaction in reactions {
        let reaction = ReactionView::from(reaction);
        let line = match args.json {
            true => serde_json::to_string(&reaction)?,
            false => row(&reaction),
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(reaction: &ReactionView) -> String {
    let counts = &reaction.counts;
    let reason = reaction.reason.as_deref().map(|why| format!("  {why}"));
    format!(
        "{:<24} {:<8} {} succeeded, {} failed, {} cancelled, {} queued  {} behind ({:.1} s)  on {}{}",
        printable(&reaction.name),
        reaction.state.as_str(),
        counts.succeeded,
        counts.failed,
        counts.cancelled,
        counts.queued,
        reaction.behind.events,
        reaction.behind.seconds,
        printable(&reaction.types.join(" ")),
        printable(&reason.unwrap_or_default()),
    )
}

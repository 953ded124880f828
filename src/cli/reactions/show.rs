//! `eclusa reactions show`

use super::unknown;
use crate::cli::table::print_line;
use crate::config::Settings;
use crate::http::reactions::view::{ReactionView, RunView};
use crate::reactions::runs::{RunId, find, overview};
use anyhow::bail;
use clap::Args;
use std::process::ExitCode;

/// Options of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The reaction's name, or the id of a run: the event's id, a dot, and the reaction's name
    #[arg(value_name = "NAME|RUN")]
    what: String,
}

/// Prints the reaction or the run as JSON.
pub async fn run(settings: &Settings, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let what = args.what.as_str();
    let text = match overview(&*store, what).await? {
        Some(reaction) => serde_json::to_string_pretty(&ReactionView::from(reaction))?,
        None => {
            let Ok(id) = what.parse::<RunId>() else {
                bail!(unknown(what));
            };
            match find(&*store, &id).await? {
                Some(run) => serde_json::to_string_pretty(&RunView::new(&id.reaction, run))?,
                None => bail!("there is no run {id}; `eclusa reactions runs` lists them"),
            }
        }
    };
    print_line(&text)?;
    Ok(ExitCode::SUCCESS)
}

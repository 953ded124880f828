//! `eclusa dlq list`

use super::DeadLetterFilterArgs;
use crate::cli::table::{print_line, printable};
use crate::config::Settings;
use crate::http::dead_letters::view::Summary;
use crate::store::dead_letters::{DeadLetterOrder, DeadLetterSummary};
use clap::Args;
use std::process::ExitCode;

/// Options of `list`.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Most dead letters to list
    #[arg(long, short = 'n', default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the dead letters.
pub async fn run(settings: &Settings, args: ListArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let filter = args.filter.filter(&[]);
    let letters = store
        .list_letters(&filter, DeadLetterOrder::Newest, None, args.limit)
        .await?;
    let shown = letters.len() as u64;
    for letter in letters {
        let line = if args.json {
            serde_json::to_string(&Summary::from(letter))?
        } else {
            row(&letter)
        };
        if !print_line(&line)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !args.json {
        let total = store.count_letters(&filter).await?;
        println!("{shown} of {total} dead letters");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(letter: &DeadLetterSummary) -> String {
    let failure = &letter.failure;
    let code = failure.sqlstate.as_deref().map(|code| format!(" {code}"));
    format!(
        "{}  {}  {:<8} {:<18} {:<20} {}",
        letter.id,
        failure.at.format("%Y-%m-%d %H:%M:%S"),
        letter.state.as_str(),
        printable(&format!("{}{}", failure.cause, code.unwrap_or_default())),
        printable(letter.event_type.as_deref().unwrap_or("-")),
        printable(&failure.error),
    )
}

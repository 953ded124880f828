//! `eclusa reactions runs`

use super::{run_status, unknown};
use crate::cli::table::{print_line, printable};
use crate::config::Settings;
use crate::http::reactions::view::RunView;
use crate::reactions::runs::{RunQuery, RunStatus, list};
use crate::store::runs::RunState;
use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use std::process::ExitCode;

/// Most runs that are read at a time.
const PAGE: usize = 1_000;

/// Options of `runs`.
#[derive(Args)]
pub struct RunsArgs {
    /// The reaction's name
    name: String,
    /// Only with this status: SUCCESS, FAILED or PENDING
    #[arg(long, value_parser = run_status, conflicts_with = "state")]
    status: Option<RunStatus>,
    /// Only in this state, such as retryable or cancelled
    #[arg(long, value_parser = run_state)]
    state: Option<RunState>,
    /// Only runs of events that the log took in at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Only runs of events that the log took in before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Most runs to list
    #[arg(long, short = 'n', default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

fn run_state(word: &str) -> Result<RunState, String> {
    let known = RunState::ALL.map(RunState::as_str);
    RunState::ALL
        .into_iter()
        .find(|state| state.as_str() == word)
        .ok_or_else(|| format!("must be one of {}", known.join(", ")))
}

/// Prints the runs.
pub async fn run(settings: &Settings, args: RunsArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let Some(reaction) = store.reaction(&args.name).await? else {
        bail!(unknown(&args.name));
    };
    let of_status = args.status.map(|status| status.states().collect());
    let mut query = RunQuery {
        states: of_status.or(args.state.map(|state| vec![state])),
        from: args.from,
        to: args.to,
        before: None,
    };
    let mut left = args.limit;
    while left > 0 {
        let page = list(&*store, &reaction, &query, left.min(PAGE)).await?;
        left -= page.runs.len();
        for run in page.runs {
            let run = RunView::new(&reaction.name, run);
            let line = match args.json {
                true => serde_json::to_string(&run)?,
                false => row(&run),
            };
            if !print_line(&line)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(run: &RunView) -> String {
    let time = run.finished_at.or(run.due);
    let time = time.map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string());
    format!(
        "{}  {:<10} {:>3} attempts  {:<19}  {}",
        printable(&run.id),
        run.state.as_str(),
        run.attempts,
        time.as_deref().unwrap_or("-"),
        printable(run.error.as_deref().unwrap_or_default()),
    )
}

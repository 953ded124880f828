//! `eclusa reactions list`

use crate::cli::table::{print_line, printable};
use crate::config::Settings;
use crate::http::reactions::view::{LaneRunBy, ReactionView};
use crate::reactions::runs::overviews;
use clap::Args;
use std::collections::BTreeSet;
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
        "{:<24} {:<8} {} succeeded, {} failed, {} cancelled, {} queued  {} behind ({:.1} s)  on {}  {}{}",
        printable(&reaction.name),
        reaction.state.as_str(),
        counts.succeeded,
        counts.failed,
        counts.cancelled,
        counts.queued,
        reaction.behind.events,
        reaction.behind.seconds,
        printable(&reaction.types.join(" ")),
        printable(&run_by(&reaction.run_by)),
        printable(&reason.unwrap_or_default()),
    )
}

/// The processes, and the lanes that have none.
fn run_by(lanes: &[LaneRunBy]) -> String {
    let (mut processes, mut idle) = (BTreeSet::new(), Vec::new());
    for lane in lanes {
        match &lane.process {
            Some(process) => drop(processes.insert(process.as_str())),
            None => idle.push(lane.lane.to_string()),
        }
    }
    let processes = Vec::from_iter(processes).join(", ");
    match (processes.as_str(), idle.join(", ").as_str()) {
        ("", _) => "run by no process".to_owned(),
        (processes, "") => format!("run by {processes}"),
        (processes, idle) => format!("run by {processes}; no process runs lanes {idle}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_without_a_process_are_named() {
        let lanes = |processes: &[Option<&str>]| {
            let lane = |(lane, process): (u32, &Option<&str>)| LaneRunBy {
                lane,
                process: process.map(str::to_owned),
            };
            run_by(&(0..).zip(processes).map(lane).collect::<Vec<_>>())
        };
        assert_eq!(lanes(&[Some("b"), Some("a"), Some("b")]), "run by a, b");
        assert_eq!(
            lanes(&[Some("a"), None, None]),
            "run by a; no process runs lanes 1, 2"
        );
        assert_eq!(lanes(&[None, None]), "run by no process");
    }
}

//! `eclusa events count`

use super::EventFilterArgs;
use crate::cli::{output, table};
use crate::config::Settings;
use crate::store::CountBy;
use clap::{Args, ValueEnum};
use std::process::ExitCode;

/// Options of `count`.
#[derive(Args)]
pub struct CountArgs {
    /// The field to count by
    #[arg(long, value_enum, default_value = "type")]
    by: By,
    #[command(flatten)]
    filter: EventFilterArgs,
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Type,
    Source,
    User,
}

/// Prints the counts, largest first, and their sum.
pub async fn run(settings: &Settings, args: CountArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let (field, name) = match args.by {
        By::Type => (CountBy::Type, "type"),
        By::Source => (CountBy::Source, "source"),
        By::User => (CountBy::User, "user"),
    };
    let counts = store.count_by(field, &args.filter.filter()).await?;
    if args.json {
        let mut lines = String::new();
        for count in &counts {
            let mut line = serde_json::Map::new();
            line.insert(name.to_owned(), count.key.clone().into());
            line.insert("events".to_owned(), count.events.into());
            lines.push_str(&format!("{}\n", serde_json::Value::Object(line)));
        }
        output::write(&lines)?;
        return Ok(ExitCode::SUCCESS);
    }
    let total: u64 = counts.iter().map(|count| count.events).sum();
    let mut rows: Vec<[String; 2]> = counts
        .into_iter()
        .map(|count| {
            let key = count.key.unwrap_or_else(|| "(none)".to_owned());
            [table::printable(&key), count.events.to_string()]
        })
        .collect();
    rows.push(["total".to_owned(), total.to_string()]);
    output::write(&table::counts(name, &rows))?;
    Ok(ExitCode::SUCCESS)
}

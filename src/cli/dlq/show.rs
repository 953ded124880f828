//! `eclusa dlq show`

use crate::cli::table::print_line;
use crate::config::Settings;
use crate::http::dead_letters::view::Letter;
use anyhow::Context as _;
use clap::Args;
use std::io::Write;
use std::process::ExitCode;
use uuid::Uuid;

/// Options of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The dead letter
    id: Uuid,
    /// Write nothing but the body's bytes
    #[arg(long)]
    raw: bool,
}

/// Prints the dead letter.
pub async fn run(settings: &Settings, args: ShowArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let letter = store.get_letter(args.id).await?;
    let letter = letter.with_context(|| format!("there is no dead letter {}", args.id))?;
    if args.raw {
        let mut out = std::io::stdout().lock();
        out.write_all(&letter.body)?;
        out.flush()?;
    } else {
        // As JSON: it leaves no control character as it is, which could play tricks on a terminal.
        print_line(&serde_json::to_string_pretty(&Letter::from(letter))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

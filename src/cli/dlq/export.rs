//! `eclusa dlq export`

use super::DeadLetterFilterArgs;
use crate::config::Settings;
use crate::http::dead_letters::view::Letter;
use crate::store::dead_letters::{DeadLetterOrder, DeadLetterSummary};
use anyhow::Context as _;
use clap::Args;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Dead letters listed at once.
const AT_ONCE: usize = 200;

/// Options of `export`.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the dead letters, oldest first.
pub async fn run(settings: &Settings, args: ExportArgs) -> anyhow::Result<ExitCode> {
    let store = crate::cli::open_for_reading(settings).await?;
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file =
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let filter = args.filter.filter(&[]);
    let (mut after, mut written) = (None, 0_u64);
    loop {
        let page = store
            .list_letters(&filter, DeadLetterOrder::Oldest, after, AT_ONCE)
            .await?;
        let Some(last) = page.last().map(DeadLetterSummary::position) else {
            break;
        };
        for summary in page {
            // One at a time: bodies may be large. One that was purged meanwhile is gone.
            let Some(letter) = store.get_letter(summary.id).await? else {
                continue;
            };
            serde_json::to_writer(&mut out, &Letter::from(letter))?;
            out.write_all(b"\n")?;
            written += 1;
        }
        after = Some(last);
    }
    out.flush()?;
    if args.output.is_some() {
        println!("{written} dead letters written");
    }
    Ok(ExitCode::SUCCESS)
}

//! `eclusa migrate`

use super::GlobalArgs;
use crate::{app, logging};
use std::process::ExitCode;

/// Brings the store's tables up to date.
pub fn run(global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let settings = global.sources(Vec::new()).load()?;
    logging::start(&settings.log)?;
    let applied = crate::cli::block_on(app::store::migrate(&settings))?;
    if applied.is_empty() {
        println!("The tables are up to date.");
    } else {
        println!(
            "Applied {} migration(s): {}",
            applied.len(),
            applied.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

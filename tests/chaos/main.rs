//! `scripts/chaos`: the chaos of the integration tests for as long as one likes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's own tasks end with it, and need no supervisor"
)]

mod arguments;
#[path = "../it/chaos/mod.rs"]
mod chaos;
#[path = "../it/harness/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the integration tests use the rest"
)]
mod harness;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--minutes") {
        // `cargo test` runs every target; the minute of chaos in its suite is in `it`.
        println!("chaos: nothing to do without --minutes; see scripts/chaos");
        return ExitCode::SUCCESS;
    }
    let plan = match arguments::plan(&arguments) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("chaos: {error}");
            return ExitCode::from(2);
        }
    };
    let report = chaos::run(&plan).await;
    print!("{report}");
    match report.verdict() {
        chaos::Verdict::Passed => ExitCode::SUCCESS,
        chaos::Verdict::Failed(_) => ExitCode::FAILURE,
        chaos::Verdict::Void(_) => ExitCode::from(3),
    }
}

//! The `eclusa` binary: arguments, settings, run.

use std::process::ExitCode;

fn main() -> ExitCode {
    eclusa::cli::run()
}

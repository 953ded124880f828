//! The `eclusa` binary: the command line, over the library.

mod cli;

// The library's modules stand at the root here too, so that `crate::` means the same everywhere.
use eclusa::{
    app, batch, broker, capture, collectors, config, dead_letters, event, followers, http, ingest,
    logging, outlets, reactions, retry, store, supervision, topics,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}

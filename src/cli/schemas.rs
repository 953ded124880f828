//! `eclusa schemas`

use super::{GlobalArgs, output};
use crate::event::schemas::compatibility::{
    CompatibilityMode, VersionPair, check_examples, compare_versions,
};
use crate::event::schemas::{OnInvalid, TypeSchemas};
use clap::{Args, Subcommand, ValueEnum};
use std::fmt::Write as _;
use std::process::ExitCode;

/// What to do with the schemas of the settings. No server is asked.
#[derive(Subcommand)]
pub enum SchemasCommand {
    /// List the types that have a schema, with their versions
    List,
    /// Check that each version is compatible with the one before; fails if one is not
    Check(CheckArgs),
}

/// Options of `check`.
#[derive(Args)]
pub struct CheckArgs {
    /// backward: readers of the newer version understand events of the older one; forward: the other
    /// way round; full: both
    #[arg(long, value_enum, default_value = "backward")]
    mode: ModeName,
    /// Take an event of an open object to have any further member, as JSON Schema does; otherwise
    /// producers are taken to send only members that their version names
    #[arg(long)]
    strict: bool,
    /// Only this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Backward,
    Forward,
    Full,
}

/// Does it.
pub fn run(global: &GlobalArgs, command: SchemasCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(Vec::new()).load()?;
    let schemas = settings.event_schemas();
    match command {
        SchemasCommand::List => {
            let mut text = String::new();
            for one in schemas.types() {
                text.push_str(&line(one));
            }
            if text.is_empty() {
                text.push_str("No event type has a schema.\n");
            }
            output::write(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        SchemasCommand::Check(args) => {
            if let Some(name) = &args.event_type
                && schemas.of_type(name).is_none()
            {
                anyhow::bail!(
                    "{name:?} has no schema in the settings; `eclusa schemas list` names those that have"
                );
            }
            let mode = match args.mode {
                ModeName::Backward => CompatibilityMode::Backward,
                ModeName::Forward => CompatibilityMode::Forward,
                ModeName::Full => CompatibilityMode::Full,
            };
            let mut text = String::new();
            let mut fails = false;
            let chosen = |one: &&TypeSchemas| {
                let name = args.event_type.as_ref();
                name.is_none_or(|name| *name == one.event_type)
            };
            for one in schemas.types().filter(chosen) {
                for pair in compare_versions(one, mode, args.strict) {
                    fails |= !pair.is_compatible();
                    describe(&one.event_type, &pair, &mut text);
                }
                for (version, reason) in check_examples(one) {
                    fails = true;
                    _ = writeln!(text, "{} version {version}: {reason}", one.event_type);
                }
            }
            if text.is_empty() {
                text.push_str(
                    "No event type has more than one version; there is nothing to compare.\n",
                );
            }
            output::write(&text)?;
            Ok(if fails {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}

fn line(schemas: &TypeSchemas) -> String {
    let on_invalid = match schemas.on_invalid {
        OnInvalid::Refuse => "refuse",
        OnInvalid::Quarantine => "quarantine",
    };
    let versions = match (schemas.oldest(), schemas.newest()) {
        (one, other) if one == other => format!("version {one}"),
        (oldest, newest) => format!("versions {oldest} to {newest}"),
    };
    format!(
        "{}  {versions}, on_invalid {on_invalid}\n",
        schemas.event_type
    )
}

fn describe(event_type: &str, pair: &VersionPair, text: &mut String) {
    let verdict = match (pair.found.is_empty(), pair.is_declared) {
        (true, _) => "compatible",
        (false, true) => "declared compatible, in spite of:",
        (false, false) => "not compatible:",
    };
    let VersionPair { older, newer, .. } = pair;
    _ = writeln!(text, "{event_type} version {older} to {newer}: {verdict}");
    for one in &pair.found {
        let pointer = &one.pointer;
        _ = writeln!(text, "  at {pointer:?}, rule {}: {}", one.rule, one.reason);
    }
}

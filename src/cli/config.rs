//! `eclusa config`

use super::{GlobalArgs, output};
use crate::app::captured;
use crate::collectors;
use crate::config::auth::Scope;
use crate::config::{DEFAULTS, LiveSettings, THROUGHPUT};
use crate::event::frame::rfc3339;
use crate::outlets::Outlets;
use crate::reactions;
use chrono::Utc;
use clap::{Subcommand, ValueEnum};
use rand::RngCore;
use sha2::{Digest, Sha256};
use std::process::ExitCode;

/// A set of settings for a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// Events a second, for time and memory
    Throughput,
}

/// What to do with the settings.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Say whether the settings are in order
    Check,
    /// Print the settings in force, secrets hidden
    Show,
    /// Print every setting with its default and what it is for
    Default,
    /// Print a set of settings for a purpose, to use as a file or to copy from
    Profile {
        /// Which one
        #[arg(value_enum)]
        name: ProfileName,
    },
    /// Make an API key: prints the key, once, and its entry for the settings
    NewKey {
        /// Name of the key, and producer of what it sends
        name: String,
        /// What it may do (may be repeated)
        #[arg(long = "scope", value_enum, default_values = ["ingest"])]
        scopes: Vec<Scope>,
    },
}

/// Does it.
pub fn run(global: &GlobalArgs, command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check => {
            let settings = global.sources(Vec::new()).load()?;
            let live = LiveSettings::new(settings.clone());
            reactions::handlers::reactions(&live)?;
            collectors::Stream::all(&settings)?;
            Outlets::new(&live)?;
            captured::check(&settings)?;
            println!(
                "The settings are in order; mode {}.",
                settings.mode().as_str()
            );
            for schedule in &settings.schedules {
                // The settings are valid, so there is a next time.
                if let Some(next) = schedule
                    .timetable()
                    .ok()
                    .and_then(|at| at.after(Utc::now()))
                {
                    println!("Schedule {}: next at {}", schedule.name, rfc3339(next));
                }
            }
        }
        ConfigCommand::Show => {
            output::write(&global.sources(Vec::new()).show()?)?;
        }
        ConfigCommand::Default => {
            output::write(DEFAULTS)?;
        }
        ConfigCommand::Profile {
            name: ProfileName::Throughput,
        } => {
            output::write(THROUGHPUT)?;
        }
        ConfigCommand::NewKey { name, scopes } => {
            let mut secret = [0; 32];
            rand::rng().fill_bytes(&mut secret);
            let key = format!("eclusa_{}", hex::encode(secret));
            let hash = hex::encode(Sha256::digest(&key));
            let scopes: Vec<String> = scopes
                .into_iter()
                .map(|scope| format!("\"{}\"", scope.as_str()))
                .collect();
            println!("Key (shown this once): {key}\n");
            println!("Put this into the list auth.keys of the settings file:");
            let name = toml::Value::String(name);
            println!(
                "  {{ name = {name}, hash = \"sha256:{hash}\", scopes = [{}] }},",
                scopes.join(", ")
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

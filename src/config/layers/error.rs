//! Why settings cannot be loaded.

use crate::config::Invalid;
use std::path::PathBuf;

/// Why settings cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file, or a value in the environment, is not TOML.
    #[error("{origin} is not valid: {reason}")]
    Syntax { origin: String, reason: String },
    /// A key that does not exist.
    #[error("{origin} sets {key}, which is not a setting{}", nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean {n}?")))]
    UnknownKey {
        origin: String,
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// Values that break rules.
    #[error("{}", .0.iter().map(|i| format!("{} {}", i.key, i.reason)).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Invalid>),
}

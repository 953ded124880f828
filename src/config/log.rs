//! Settings of logs.

use super::Invalid;
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Human` on a terminal, otherwise `Json`.
    Auto,
    Human,
    /// One JSON object per line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Levels by target, such as `warn,eclusa=debug`.
    pub filter: String,
    /// Format of log lines.
    pub format: LogFormat,
}

impl LogSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        if let Err(error) = self.filter.parse::<Targets>() {
            found.push(Invalid::new(
                "log.filter",
                format!("is {:?}: {error}", self.filter),
            ));
        }
    }
}

//! Logs.

use super::Invalid;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// tracing's filter syntax.
    pub filter: String,
    /// Shape of a line.
    pub format: LogFormat,
}

impl LogSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            found.push(Invalid::new(
                "log.filter",
                format!("is {:?}: {error}", self.filter),
            ));
        }
    }
}

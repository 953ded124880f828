//! Settings of the log line of a reaction.

use serde::Deserialize;

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// `log = { ... }` of a reaction: one log line for each event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLineSettings {
    #[serde(default)]
    pub level: LogLevel,
    /// Whether the line has the event's data, which may be personal.
    #[serde(default)]
    pub data: bool,
}

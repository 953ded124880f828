//! Which store and broker a process uses.

use serde::Deserialize;

/// Store and broker in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decided by the URLs that are set.
    Auto,
    Embedded,
    Database,
    Full,
}

impl Mode {
    /// The word in settings and in start-up output.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Embedded => "embedded",
            Mode::Database => "database",
            Mode::Full => "full",
        }
    }
}

//! Where what is declared in the settings begins to read the log.

use serde::Deserialize;

/// Which events concern what is declared for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredStart {
    /// Those that are committed after its first declaration.
    #[default]
    Now,
    /// Those of the past too.
    Beginning,
}

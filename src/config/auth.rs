//! Settings of API keys: who may do what.

use super::Invalid;
use serde::Deserialize;
use std::sync::Arc;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Ingest,
    Read,
    Admin,
}

impl Scope {
    /// The word in settings and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Ingest => "ingest",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

/// What to do beyond loopback when there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutKeys {
    Refuse,
    /// Serve every caller that reaches the port and names one of `http.allowed_hosts`.
    AllowBeyondLoopback,
}

/// An API key, known by its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Producer of what the key sends, and its name in logs.
    pub name: Arc<str>,
    /// `sha256:` and 64 hexadecimal digits: the hash of the key's text. Keys are long and random,
    /// so a plain fast hash gives nothing away.
    pub hash: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl ApiKey {
    /// The 32 bytes of the hash.
    pub fn digest(&self) -> Option<[u8; 32]> {
        let digits = self.hash.strip_prefix("sha256:")?;
        hex::decode(digits).ok()?.try_into().ok()
    }
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// What to do beyond loopback when there are no keys.
    pub without_keys: WithoutKeys,
    /// Serve `/metrics` without a key.
    pub public_metrics: bool,
    pub keys: Vec<ApiKey>,
}

impl AuthSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        for (index, key) in self.keys.iter().enumerate() {
            let at = format!("auth.keys[{index}]");
            if key.name.is_empty() {
                found.push(Invalid::new(&at, "has no name"));
            }
            if key.digest().is_none() {
                found.push(Invalid::new(
                    &at,
                    format!(
                        "the hash of {:?} is not \"sha256:\" and 64 hexadecimal digits; make a \
                         key with `eclusa config new-key`",
                        key.name
                    ),
                ));
            }
            if key.scopes.is_empty() {
                found.push(Invalid::new(
                    &at,
                    format!("{:?} has no scopes, so it may do nothing", key.name),
                ));
            }
        }
    }
}

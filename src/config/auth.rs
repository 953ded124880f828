//! Settings of API keys: who may do what.

use super::Invalid;
use crate::event::pix::is_ispb;
use serde::Deserialize;
use std::sync::Arc;

/// The stream of Pix messages, whose keys are ISPBs.
const PIX: &str = "pix";

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Ingest,
    Read,
    /// Collecting the messages of streams.
    Collect,
    Admin,
}

impl Scope {
    /// The word in settings and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Ingest => "ingest",
            Scope::Read => "read",
            Scope::Collect => "collect",
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
    /// The one ISPB whose Pix messages it may collect.
    #[serde(default)]
    pub ispb: Option<String>,
    /// The one key of a stream that it may collect, as `STREAM/KEY`.
    #[serde(default)]
    pub stream: Option<String>,
}

/// A key of a stream that an API key is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub stream: String,
    pub key: String,
}

impl ApiKey {
    /// What it may collect, if it is bound.
    pub fn bound_to(&self) -> Option<Bound> {
        let (stream, key) = match (&self.ispb, &self.stream) {
            (Some(ispb), _) => (PIX, ispb.as_str()),
            (None, stream) => stream.as_ref()?.split_once('/')?,
        };
        Some(Bound {
            stream: stream.to_owned(),
            key: key.to_owned(),
        })
    }

    /// What is wrong with what it is bound to.
    fn flaw_of_bound(&self) -> Option<String> {
        let name = &self.name;
        if self.ispb.is_none() && self.stream.is_none() {
            return None;
        }
        if self.ispb.is_some() && self.stream.is_some() {
            return Some(format!(
                "{name:?} has both ispb and stream; leave one of them away"
            ));
        }
        if self.ispb.as_deref().is_some_and(|ispb| !is_ispb(ispb)) {
            return Some(format!("the ispb of {name:?} must have 8 digits"));
        }
        if self
            .bound_to()
            .is_none_or(|bound| bound.stream.is_empty() || bound.key.is_empty())
        {
            return Some(format!("the stream of {name:?} must be STREAM/KEY"));
        }
        let is_ispb = |bound: &Bound| bound.stream != PIX || is_ispb(&bound.key);
        if !self.bound_to().as_ref().is_none_or(is_ispb) {
            return Some(format!(
                "the key in the stream of {name:?} must be an ISPB of 8 digits, as those of {PIX} are"
            ));
        }
        let beyond = |scope: &&Scope| matches!(scope, Scope::Read | Scope::Admin);
        self.scopes.iter().find(beyond).map(|scope| {
            format!(
                "{name:?} is bound to a key, but its scope {:?} shows the messages of all; leave that scope away",
                scope.as_str()
            )
        })
    }

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
    /// Whether a caller may do this that once presented the key with this digest, or none. Without keys every caller
    /// may.
    pub fn grants(&self, digest: Option<&[u8; 32]>, scope: Scope) -> bool {
        let grants = |key: &ApiKey| {
            key.digest().as_ref() == digest
                && (key.scopes.contains(&scope) || key.scopes.contains(&Scope::Admin))
        };
        self.keys.is_empty() || digest.is_some() && self.keys.iter().any(grants)
    }

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
            if let Some(flaw) = key.flaw_of_bound() {
                found.push(Invalid::new(&at, flaw));
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

#[cfg(test)]
mod tests {
    use crate::config::Sources;

    fn flaw(bound_to: &str) -> Option<String> {
        let hash = "0".repeat(64);
        let text = format!(
            "[[auth.keys]]\nname = \"bank\"\nhash = \"sha256:{hash}\"\nscopes = [\"collect\"]\n{bound_to}\n\
             [[streams]]\nname = \"orders\"\non = [\"order.*\"]\nkey = \"eventData.store\"\n"
        );
        Sources::from_text(&text)
            .load()
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_key_is_bound_to_what_there_can_be() {
        for fits in [
            "",
            "ispb = \"12345678\"",
            "stream = \"pix/12345678\"",
            "stream = \"orders/store-7\"",
            "stream = \"orders/a/b\"",
        ] {
            assert_eq!(flaw(fits), None, "{fits}");
        }
        for (bound_to, reason) in [
            ("ispb = \"1234567\"", "8 digits"),
            ("stream = \"pix/abc\"", "8 digits"),
            ("stream = \"pix/123456789\"", "8 digits"),
            ("stream = \"orders/\"", "STREAM/KEY"),
            ("stream = \"orders\"", "STREAM/KEY"),
        ] {
            let flaw = flaw(bound_to).unwrap_or_default();
            assert!(flaw.contains(reason), "{bound_to}: {flaw}");
        }
    }

    #[test]
    #[cfg(feature = "service")]
    fn a_key_is_not_bound_to_a_stream_that_is_not_declared() {
        for stream in ["nope/x", "order/store-7"] {
            let flaw = flaw(&format!("stream = {stream:?}")).unwrap_or_default();
            assert!(flaw.contains("not declared"), "{stream}: {flaw}");
        }
    }

    #[test]
    fn a_key_that_was_taken_away_grants_nothing() {
        use super::Scope;
        let auth = |scope: &str| {
            let text = format!(
                "[[auth.keys]]\nname = \"k\"\nhash = \"sha256:{}\"\nscopes = [\"{scope}\"]\n",
                "01".repeat(32)
            );
            Sources::from_text(&text).load().unwrap().auth
        };
        let (known, other) = ([1; 32], [2; 32]);
        for scope in ["read", "admin"] {
            assert!(auth(scope).grants(Some(&known), Scope::Read));
            assert!(!auth(scope).grants(Some(&other), Scope::Read));
            assert!(!auth(scope).grants(None, Scope::Read));
        }
        assert!(!auth("ingest").grants(Some(&known), Scope::Read));
        let open = Sources::from_text("").load().unwrap().auth;
        assert!(open.grants(None, Scope::Read) && open.grants(Some(&known), Scope::Read));
    }
}

//! Settings of the webhook of a reaction.

use crate::config::{Invalid, units};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Bytes of a secret, as Standard Webhooks has it.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(600);

/// `webhook = { ... }` of a reaction: where its events are sent, and how.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// `https://` or `http://` URL without user name and password. Its path may be a secret.
    pub url: String,
    /// `whsec_<base64>` of 24 to 64 bytes. Several, separated by white space, each give a signature,
    /// so that the receiver can change from one to the next at any time.
    pub secret: Option<String>,
    /// File with what `secret` would hold. One of the two is set.
    pub secret_file: Option<PathBuf>,
    /// Send to addresses that are not public too, such as loopback and private networks.
    #[serde(default)]
    pub allow_private: bool,
    /// How long one attempt may take, from the look-up of the name to the end of the answer; absent
    /// for the timeout of the reaction.
    #[serde(default, with = "units::optional_duration")]
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("secret_file", &self.secret_file)
            .field("allow_private", &self.allow_private)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl WebhookSettings {
    /// Adds what is invalid; `at` is the key of the webhook itself, as `reactions[0].webhook`.
    pub fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        let flaws = [
            self.endpoint().err(),
            self.secrets().err(),
            self.time_limit().err(),
        ];
        for flaw in flaws.into_iter().flatten() {
            found.push(Invalid::new(&format!("{at}.{}", flaw.key), flaw.reason));
        }
    }

    /// The parsed URL.
    ///
    /// # Errors
    /// It is none, has another scheme, or has a user name or a password. The key is that below the
    /// webhook, and the reason does not quote the URL.
    pub fn endpoint(&self) -> Result<Url, Invalid> {
        let invalid = |reason: String| Invalid::new("url", reason);
        let url = Url::parse(&self.url).map_err(|error| {
            invalid(format!(
                "is not a URL: {error}; write one such as \"https://example.org/hooks\""
            ))
        })?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(invalid(format!(
                "has the scheme {:?}, but must begin with https:// or http://",
                url.scheme()
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "has a user name or a password; remove it, since the receiver tells the sender by the \
                 signature"
                    .to_owned(),
            ));
        }
        Ok(url)
    }

    /// The bytes of the secrets, at least one.
    ///
    /// # Errors
    /// There is none, the file cannot be read, or one is malformed. The key is that below the webhook,
    /// and the reason does not quote a secret.
    pub fn secrets(&self) -> Result<Vec<Vec<u8>>, Invalid> {
        let (key, text) = match (&self.secret, &self.secret_file) {
            (Some(text), None) => ("secret", text.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Invalid::new(
                        "secret_file",
                        format!("cannot be read: {}: {error}", path.display()),
                    )
                })?;
                ("secret_file", text)
            }
            (Some(_), Some(_)) => {
                let reason = "is set, and secret too; remove one of them";
                return Err(Invalid::new("secret_file", reason));
            }
            (None, None) => ("secret", String::new()),
        };
        let secrets = text
            .split_whitespace()
            .enumerate()
            .map(|(index, secret)| {
                decode(secret).map_err(|flaw| {
                    Invalid::new(
                        key,
                        format!(
                            "has a secret (number {}) that {flaw}; a secret is \"whsec_\" and the \
                             base64 of 24 to 64 random bytes",
                            index + 1
                        ),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() {
            return Err(Invalid::new(
                key,
                "is empty, but what is sent is signed; set secret or secret_file to \"whsec_\" and the \
                 base64 of 24 to 64 random bytes (openssl rand -base64 32)",
            ));
        }
        Ok(secrets)
    }

    /// The time limit of one attempt, 30 s if none is set.
    ///
    /// # Errors
    /// It is out of range. The key is that below the webhook.
    pub fn time_limit(&self) -> Result<Duration, Invalid> {
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT);
        if TIMEOUTS.contains(&timeout) {
            return Ok(timeout);
        }
        Err(Invalid::new(
            "timeout",
            format!(
                "is {}, but must lie between 1ms and 10m",
                humantime::format_duration(timeout)
            ),
        ))
    }
}

/// The bytes of a secret, or what is wrong with it.
fn decode(secret: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = secret
        .strip_prefix("whsec_")
        .ok_or("does not begin with \"whsec_\"")?;
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| "is not base64 with padding after \"whsec_\"")?;
    match bytes.len() {
        length if SECRET_BYTES.contains(&length) => Ok(bytes),
        length if length < *SECRET_BYTES.start() => Err("has less than 24 bytes"),
        _ => Err("has more than 64 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn settings(text: &str) -> WebhookSettings {
        toml::from_str(text).unwrap()
    }

    fn with_url(url: &str) -> WebhookSettings {
        settings(&format!("url = {url:?}\nsecret = \"{SECRET}\""))
    }

    fn flaws(settings: &WebhookSettings) -> Vec<(String, String)> {
        let mut found = Vec::new();
        settings.validate("reactions[2].webhook", &mut found);
        found.into_iter().map(|i| (i.key, i.reason)).collect()
    }

    /// The only flaw is in `key`, and says `word`.
    fn flawed(settings: &WebhookSettings, key: &str, word: &str) {
        let found = flaws(settings);
        let [(at, reason)] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(at, &format!("reactions[2].webhook.{key}"));
        assert!(reason.contains(word), "{reason}");
    }

    #[test]
    fn defaults_and_unknown_keys() {
        let settings = with_url("https://example.org/hooks");
        assert_eq!(flaws(&settings), []);
        assert_eq!(settings.time_limit(), Ok(Duration::from_secs(30)));
        assert!(!settings.allow_private);
        let unknown = toml::from_str::<WebhookSettings>("url = \"http://a\"\nsecrets = []");
        assert!(unknown.unwrap_err().to_string().contains("secrets"));
    }

    #[test]
    fn a_url_is_http_and_has_no_user() {
        flawed(&with_url("example.org/hooks"), "url", "is not a URL");
        flawed(&with_url("https://"), "url", "is not a URL");
        flawed(&with_url("ftp://example.org"), "url", "\"ftp\"");
        flawed(&with_url("file:///etc/passwd"), "url", "\"file\"");
        for url in ["https://me@example.org", "https://:s3cret@example.org"] {
            flawed(&with_url(url), "url", "user name or a password");
        }
    }

    #[test]
    fn secrets_have_a_form_and_a_length() {
        let with = |secret: &str| settings(&format!("url = \"http://a\"\nsecret = {secret:?}"));
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for bytes in [24, 64] {
            let secrets = with(&of(bytes)).secrets().unwrap();
            assert_eq!(secrets, [vec![7; bytes]]);
        }
        flawed(&with(&of(23)), "secret", "less than 24");
        flawed(&with(&of(65)), "secret", "more than 64");
        flawed(&with("MfKQ9r8GKYqr"), "secret", "begin with");
        flawed(&with("whsec_Mf!Q9r8G"), "secret", "base64");
        flawed(&with(" "), "secret", "is empty");
        flawed(&settings("url = \"http://a\""), "secret", "is empty");
        let second = with(&format!("{SECRET} whsec_bad!"));
        flawed(&second, "secret", "number 2");
        assert_eq!(
            with(&format!("{SECRET} {SECRET}")).secrets().unwrap().len(),
            2
        );
    }

    #[test]
    fn secrets_come_from_a_file_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook");
        let mut settings = with_url("https://example.org/t0ken");
        std::fs::write(&file, format!("{SECRET}\n{SECRET}\n")).unwrap();
        settings.secret_file = Some(file.clone());
        flawed(&settings, "secret_file", "secret too");
        let shown = format!("{settings:?}");
        assert!(
            !shown.contains("MfKQ") && !shown.contains("t0ken"),
            "{shown}"
        );
        settings.secret = None;
        assert_eq!(settings.secrets().unwrap().len(), 2);
        std::fs::write(&file, "whsec_t0psecret").unwrap();
        flawed(&settings, "secret_file", "number 1");
        assert!(!format!("{:?}", flaws(&settings)).contains("t0psecret"));
        settings.secret_file = Some(folder.path().join("missing"));
        flawed(&settings, "secret_file", "missing");
    }

    #[test]
    fn a_timeout_has_a_range() {
        let mut settings = with_url("http://example.org");
        for timeout in [Duration::ZERO, Duration::from_secs(601)] {
            settings.timeout = Some(timeout);
            flawed(&settings, "timeout", "between 1ms and 10m");
        }
    }
}

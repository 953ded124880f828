//! Settings of the e-mails that a reaction sends.

use crate::config::{Invalid, units};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How the way to the SMTP server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// STARTTLS, without which nothing is sent.
    #[default]
    Required,
    /// TLS from the first byte.
    Implicit,
    /// Not at all: password and e-mail can be read on the way.
    None,
}

/// `email = { ... }` of a reaction: one e-mail for each event, sent over SMTP.
///
/// `to`, `subject`, `text` and `html` are templates in the syntax of Jinja over `id`, `eventType`,
/// `eventData`, `userId`, `sessionId`, `timestamp` and `runId`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// Name or IP address of the SMTP server.
    pub host: String,
    /// Port of the SMTP server; absent for the one that is usual for `tls`.
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: SmtpTls,
    /// PEM file of a certificate to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// User for SMTP authentication; absent for a server that asks for none.
    pub user: Option<String>,
    /// A secret.
    #[serde(default, deserialize_with = "password")]
    pub password: Option<String>,
    /// File that holds the password; an end of line at its end does not count.
    pub password_file: Option<PathBuf>,
    /// Sender: `address@host`, or `Name <address@host>`.
    pub from: String,
    /// Recipients: a template, or a list of templates, each of one or several addresses separated by
    /// commas. A list of the event stands for its items.
    #[serde(deserialize_with = "one_or_more")]
    pub to: Vec<String>,
    /// Domains that recipients may have: `example.org` for itself, `.example.org` for all below it.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    pub subject: Option<String>,
    pub subject_file: Option<PathBuf>,
    /// The plain text.
    pub text: Option<String>,
    pub text_file: Option<PathBuf>,
    /// The HTML; values are escaped.
    pub html: Option<String>,
    pub html_file: Option<PathBuf>,
    /// What stands after the `@` of `Message-ID`, and in EHLO; absent for the sender's domain.
    pub message_id_host: Option<String>,
    /// How long an attempt may take, from the connection to the server's last answer; absent for the
    /// timeout of the reaction.
    #[serde(default, with = "units::optional_duration")]
    pub timeout: Option<Duration>,
}

impl EmailSettings {
    /// The port as set, or the usual one.
    pub fn port_in_force(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            SmtpTls::Required => 587,
            SmtpTls::Implicit => 465,
            SmtpTls::None => 25,
        })
    }

    /// The time limit of one attempt, 30 s if none is set.
    pub fn time_limit(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Whether a recipient depends on the event.
    pub fn recipients_from_event(&self) -> bool {
        self.to.iter().any(|to| is_template(to))
    }

    /// Adds what is wrong, with keys that begin with `at`. Files, addresses and templates are not
    /// looked into: making the handler of the reaction does that.
    pub fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        let mut wrong = |key: &str, reason: &str| {
            found.push(Invalid::new(&format!("{at}.{key}"), reason));
        };
        if self.host.is_empty() || self.host.contains(['/', '@', ' ']) {
            wrong(
                "host",
                "must be a host name or an IP address alone, such as \"smtp.example.org\"; the port is a key of its own",
            );
        }
        if self.port == Some(0) {
            wrong("port", "must not be 0");
        }
        if self.tls == SmtpTls::None && self.ca_file.is_some() {
            wrong(
                "ca_file",
                "has no use with tls = \"none\"; remove one of them",
            );
        }
        let password = one_of(&self.password, &self.password_file);
        if password == Given::Both {
            wrong(
                "password",
                "is set, and password_file too; remove one of them",
            );
        }
        match (&self.user, password) {
            (Some(_), Given::Neither) => {
                wrong(
                    "user",
                    "is set without a password; set password_file or password",
                );
            }
            (None, Given::One | Given::Both) => {
                wrong("password", "is set without a user; set user")
            }
            _ => {}
        }
        if self.to.is_empty() {
            wrong("to", "names no recipient");
        }
        if self.recipients_from_event() && self.allowed_domains.is_empty() {
            wrong(
                "allowed_domains",
                "must name the domains that recipients may have, since \"to\" is made from the event; without it an event could send e-mail to anybody",
            );
        }
        for domain in &self.allowed_domains {
            if domain.trim_start_matches('.').is_empty() || domain.contains(['*', '@', ' ', '/']) {
                wrong(
                    "allowed_domains",
                    &format!(
                        "has {domain:?}; write \"example.org\" for the domain itself, \".example.org\" for all below it"
                    ),
                );
            }
        }
        match one_of(&self.subject, &self.subject_file) {
            Given::One => {}
            Given::Neither => wrong("subject", "is missing; set subject or subject_file"),
            Given::Both => wrong(
                "subject",
                "is set, and subject_file too; remove one of them",
            ),
        }
        let text = one_of(&self.text, &self.text_file);
        let html = one_of(&self.html, &self.html_file);
        for (key, given) in [("text", text), ("html", html)] {
            if given == Given::Both {
                wrong(
                    key,
                    &format!("is set, and {key}_file too; remove one of them"),
                );
            }
        }
        if (text, html) == (Given::Neither, Given::Neither) {
            wrong("text", "is missing; set text, text_file, html or html_file");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.time_limit()) {
            let set = humantime::format_duration(self.time_limit());
            wrong(
                "timeout",
                &format!("is {set}, but must lie between 1s and 10m"),
            );
        }
    }
}

impl std::fmt::Debug for EmailSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmailSettings")
            .field("host", &self.host)
            .field("port", &self.port_in_force())
            .field("tls", &self.tls)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// Whether a text has parts that are made from the event.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// How a value is given that may stand in the settings or in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Neither,
    One,
    Both,
}

fn one_of(inline: &Option<String>, file: &Option<impl AsRef<Path>>) -> Given {
    match (inline, file) {
        (None, None) => Given::Neither,
        (Some(_), Some(_)) => Given::Both,
        _ => Given::One,
    }
}

/// Without the value in the error, as serde would have it.
fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
        .map_err(|_| D::Error::custom("the password of an e-mail must be a text in quotes"))
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "\"to\" must be a text or a list of texts")]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: &str = r#"
        host = "smtp.example.org"
        from = "shop@example.org"
        to = "me@example.org"
        subject = "s"
        text = "t"
    "#;

    fn keys(text: &str) -> Vec<String> {
        let settings: EmailSettings = toml::from_str(text).unwrap();
        let mut found = Vec::new();
        settings.validate("email", &mut found);
        found.into_iter().map(|invalid| invalid.key).collect()
    }

    #[test]
    fn little_is_enough_and_encrypted() {
        let settings: EmailSettings = toml::from_str(ENOUGH).unwrap();
        assert_eq!(
            (settings.tls, settings.port_in_force()),
            (SmtpTls::Required, 587)
        );
        assert_eq!(
            (settings.time_limit().as_secs(), settings.to.len()),
            (30, 1)
        );
        assert!(keys(ENOUGH).is_empty());
        assert!(toml::from_str::<EmailSettings>(&format!("{ENOUGH}\nsubjekt = \"s\"")).is_err());
    }

    #[test]
    fn what_is_missing_or_contradicts_is_named() {
        for (line, key) in [
            ("user = \"u\"", "email.user"),
            ("password = \"p\"", "email.password"),
            (
                "user = \"u\"\npassword = \"p\"\npassword_file = \"f\"",
                "email.password",
            ),
            ("subject_file = \"f\"", "email.subject"),
            ("text_file = \"f\"", "email.text"),
            ("html = \"h\"\nhtml_file = \"f\"", "email.html"),
            ("timeout = \"0s\"", "email.timeout"),
            ("port = 0", "email.port"),
            (
                "allowed_domains = [\"*.example.org\"]",
                "email.allowed_domains",
            ),
            ("tls = \"none\"\nca_file = \"f\"", "email.ca_file"),
        ] {
            assert_eq!(keys(&format!("{ENOUGH}\n{line}")), [key], "{line}");
        }
        assert_eq!(keys(&ENOUGH.replace("text =", "html_file =")), [""; 0]);
        assert_eq!(keys(&ENOUGH.replace("text = \"t\"", "")), ["email.text"]);
        assert_eq!(keys(&ENOUGH.replace("smtp.", "smtp://")), ["email.host"]);
        assert_eq!(
            keys(&ENOUGH.replace("\"me@example.org\"", "[]")),
            ["email.to"]
        );
    }

    #[test]
    fn recipients_from_the_event_need_an_allow_list() {
        let event = ENOUGH.replace("\"me@", "[\"me@example.org\", \"{{ userId }}@");
        let event = event.replace("}}@example.org\"", "}}@example.org\"]");
        assert_eq!(keys(&event), ["email.allowed_domains"]);
        assert!(keys(&format!("{event}\nallowed_domains = [\".example.org\"]")).is_empty());
    }

    #[test]
    fn the_password_is_not_shown() {
        let text = format!("{ENOUGH}\nuser = \"u\"\npassword = \"hunter2\"");
        let settings: EmailSettings = toml::from_str(&text).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let number = toml::Value::Table(format!("{ENOUGH}\npassword = 31337").parse().unwrap());
        let error = number.try_into::<EmailSettings>().unwrap_err().to_string();
        assert!(
            error.contains("in quotes") && !error.contains("31337"),
            "{error}"
        );
    }
}

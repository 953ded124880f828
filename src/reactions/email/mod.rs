//! The handler that sends an e-mail for each event.

mod address_list;
mod answers;
mod connections;
mod message;
mod recipients;
mod templates;
mod transaction;

use super::{Handler, HandlerError, Run};
use crate::config::reactions::email::{EmailSettings, is_template};
use address_list::NEVER_IN_HEADERS;
use async_trait::async_trait;
use connections::{Connections, Login};
use lettre::Message;
use lettre::message::Mailbox;
use message::Contents;
use recipients::{AllowedDomains, MAX_RECIPIENTS, mailbox, to_ascii};
use std::path::Path;
use std::time::Duration;
use templates::{Templates, variables};

/// Why an e-mail cannot be sent with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {reason}")]
pub struct InvalidEmail {
    /// The key, beginning with `email.`.
    pub key: String,
    /// What is wrong, with the line if it is in a template, and what to do.
    pub reason: String,
}

impl InvalidEmail {
    fn new(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: format!("email.{key}"),
            reason: reason.into(),
        }
    }
}

/// Sends an e-mail for each event. Every attempt of a run has the same `Message-ID`, so that the
/// recipient's server can tell a repeat.
pub struct Email {
    from: Mailbox,
    /// Names of the templates of recipients.
    to: Vec<String>,
    allowed: AllowedDomains,
    templates: Templates,
    has_text: bool,
    has_html: bool,
    /// What stands after the `@` of `Message-ID`.
    message_id_host: String,
    connections: Connections,
    timeout: Duration,
}

impl Email {
    /// Reads the files of the settings and compiles the templates; it makes no connection.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn new(settings: &EmailSettings) -> Result<Self, InvalidEmail> {
        let mut found = Vec::new();
        settings.validate("email", &mut found);
        if let Some(invalid) = found.into_iter().next() {
            let (key, reason) = (invalid.key, invalid.reason);
            return Err(InvalidEmail { key, reason });
        }
        let from = sender(&settings.from)?;
        let allowed = AllowedDomains::new(&settings.allowed_domains)
            .map_err(|reason| InvalidEmail::new("allowed_domains", reason))?;
        let message_id_host = match &settings.message_id_host {
            None => from.email.domain().to_owned(),
            Some(host) => to_ascii(host).ok_or_else(|| {
                InvalidEmail::new(
                    "message_id_host",
                    format!("is {host:?}, which is not a host name"),
                )
            })?,
        };
        let certificate = match &settings.ca_file {
            Some(path) => Some(read("ca_file", path)?),
            None => None,
        };
        let password = text_of(
            "password",
            &settings.password,
            settings.password_file.as_deref(),
        )?;
        let login = match (&settings.user, password) {
            (Some(user), Some((_, password))) => {
                Some(Login::new(user, password.trim_end_matches(['\r', '\n'])))
            }
            _ => None,
        };
        let connections =
            Connections::new(settings, &message_id_host, certificate.as_deref(), login)
                .map_err(|reason| InvalidEmail::new("ca_file", reason))?;

        let mut templates = Templates::new();
        let mut add = |name: &str, inline: &Option<String>, file: Option<&Path>| {
            let Some((key, source)) = text_of(name, inline, file)? else {
                return Ok(false);
            };
            let added = templates.add(name, source);
            added.map_err(|reason| InvalidEmail::new(&key, reason))?;
            Ok(true)
        };
        add(
            "subject",
            &settings.subject,
            settings.subject_file.as_deref(),
        )?;
        let has_text = add("text", &settings.text, settings.text_file.as_deref())?;
        let has_html = add("html", &settings.html, settings.html_file.as_deref())?;
        let mut to = Vec::new();
        for (source, index) in settings.to.iter().zip(0..) {
            let name = format!("to[{index}]");
            add(&name, &Some(source.clone()), None)?;
            if !is_template(source) {
                mailboxes(source, &allowed).map_err(|reason| {
                    InvalidEmail::new(&name, format!("is {source:?}: {reason}"))
                })?;
            }
            to.push(name);
        }
        Ok(Self {
            from,
            to,
            allowed,
            templates,
            has_text,
            has_html,
            message_id_host,
            connections,
            timeout: settings.time_limit(),
        })
    }

    /// The e-mail of a run.
    ///
    /// # Errors
    /// Why there is none, now and at any other attempt.
    fn compose(&self, run: &Run) -> Result<Message, String> {
        let variables = variables(run)?;
        let render = |name: &str| self.templates.render(name, &variables);
        let mut to: Vec<Mailbox> = Vec::new();
        for name in &self.to {
            for mailbox in mailboxes(&render(name)?, &self.allowed)? {
                if to.iter().all(|other| other.email != mailbox.email) {
                    to.push(mailbox);
                }
            }
        }
        if to.is_empty() {
            return Err("the e-mail has no recipient".to_owned());
        }
        if to.len() > MAX_RECIPIENTS {
            return Err(format!(
                "the e-mail has {} recipients; at most {MAX_RECIPIENTS} are allowed",
                to.len()
            ));
        }
        let subject = render("subject")?;
        if subject.contains(NEVER_IN_HEADERS) {
            return Err("the subject contains a line break or NUL".to_owned());
        }
        let contents = Contents {
            message_id: format!("{}@{}", run.id(), self.message_id_host),
            from: self.from.clone(),
            to,
            subject,
            text: self.has_text.then(|| render("text")).transpose()?,
            html: self.has_html.then(|| render("html")).transpose()?,
        };
        contents.message()
    }
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email")
            .field("server", &self.connections.server())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for Email {
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        let message = self.compose(run).map_err(HandlerError::Discard)?;
        let sending = transaction::send(&self.connections, &message);
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(HandlerError::Failed(format!(
                "{} has not taken the e-mail within {}",
                self.connections.server(),
                humantime::format_duration(self.timeout)
            ))),
        }
    }
}

/// The recipients in a list, each of an allowed domain.
fn mailboxes(list: &str, allowed: &AllowedDomains) -> Result<Vec<Mailbox>, String> {
    let entries = address_list::parse(list)
        .map_err(|reason| format!("the recipients are not a list of addresses: {reason}"))?;
    let mut mailboxes = Vec::new();
    for entry in entries {
        let mailbox = mailbox(entry).map_err(|reason| format!("a recipient {reason}"))?;
        if !allowed.allow(mailbox.email.domain()) {
            return Err(format!(
                "a recipient has the domain {}, which is not in allowed_domains",
                mailbox.email.domain()
            ));
        }
        mailboxes.push(mailbox);
    }
    Ok(mailboxes)
}

fn sender(text: &str) -> Result<Mailbox, InvalidEmail> {
    let invalid = |reason: &str| InvalidEmail::new("from", format!("is {text:?}: it {reason}"));
    let mut entries = address_list::parse(text).map_err(invalid)?.into_iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => mailbox(entry).map_err(invalid),
        _ => Err(invalid("must be one address")),
    }
}

/// A text of the settings, or of the file that stands for it, and its key.
fn text_of(
    key: &str,
    inline: &Option<String>,
    file: Option<&Path>,
) -> Result<Option<(String, String)>, InvalidEmail> {
    if let Some(text) = inline {
        return Ok(Some((key.to_owned(), text.clone())));
    }
    let key = format!("{key}_file");
    file.map(|path| Ok((key.clone(), read(&key, path)?)))
        .transpose()
}

fn read(key: &str, path: &Path) -> Result<String, InvalidEmail> {
    std::fs::read_to_string(path).map_err(|error| {
        InvalidEmail::new(
            key,
            format!("is {}, which cannot be read: {error}", path.display()),
        )
    })
}

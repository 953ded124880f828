//! The settings, each a variable of the environment.

use anyhow::{Context as _, bail};
use eclusa::config::reactions::email::EmailSettings;
use serde_json::json;
use std::path::PathBuf;
use url::Url;

pub struct Settings {
    pub port: u16,
    /// PostgreSQL; SQLite if absent.
    pub database_url: Option<String>,
    /// The folder of the SQLite file.
    pub data_dir: PathBuf,
    pub email: EmailSettings,
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

impl Settings {
    pub fn from_environment() -> anyhow::Result<Self> {
        let port = variable("PORT", "3000");
        let database_url = std::env::var("DATABASE_URL").ok();
        if let Some(url) = &database_url
            && !url.starts_with("postgres://")
            && !url.starts_with("postgresql://")
        {
            bail!("DATABASE_URL must begin with postgres://; unset it for SQLite");
        }
        Ok(Self {
            port: port
                .parse()
                .with_context(|| format!("PORT is {port:?}, but must be a number up to 65535"))?,
            database_url,
            data_dir: variable("DATA_DIR", "signup-data").into(),
            email: email()?,
        })
    }
}

/// The welcome mail and the way to the SMTP server.
fn email() -> anyhow::Result<EmailSettings> {
    let url = variable("SMTP_URL", "smtp://127.0.0.1:1025");
    let url = Url::parse(&url).context("SMTP_URL is no URL; write smtp://host:port")?;
    let tls = match url.scheme() {
        "smtp" => "none",
        "smtps" => "implicit",
        other => bail!("SMTP_URL has the scheme {other:?}; write smtp:// or, for TLS, smtps://"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        bail!("SMTP_URL has a user or a password; set SMTP_USER and SMTP_PASSWORD instead");
    }
    let domains = variable("MAIL_DOMAINS", "example.org");
    let settings = json!({
        "host": url.host_str().context("SMTP_URL names no host")?,
        "port": url.port(),
        "tls": tls,
        "user": std::env::var("SMTP_USER").ok(),
        "password": std::env::var("SMTP_PASSWORD").ok(),
        "from": variable("MAIL_FROM", "Signup <welcome@example.org>"),
        "to": "{{ eventData.name }} <{{ eventData.email }}>",
        "allowed_domains": domains.split(',').map(str::trim).collect::<Vec<_>>(),
        "subject": "Welcome, {{ eventData.name }}",
        "text": "Hello {{ eventData.name }},\n\nthank you for signing up.\n",
        "timeout": "5s",
    });
    serde_json::from_value(settings).context("the settings of the mail cannot be used")
}

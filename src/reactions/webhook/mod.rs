//! Sends events to an HTTP server: a CloudEvent, signed as Standard Webhooks says.

mod address;
mod answer;
mod client;
mod resolver;
mod signature;

pub use resolver::{Lookup, SystemLookup};

use super::handler::{Handler, HandlerError, Run};
use crate::config::Invalid;
use crate::config::reactions::webhook::WebhookSettings;
use crate::followers::cloud_event;
use address::not_public;
use async_trait::async_trait;
use chrono::Utc;
use client::HttpClient;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, Uri};
use resolver::Resolver;
use rustls::RootCertStore;
use signature::Signer;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

/// The setting for which a webhook cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("webhook.{} {}", .0.key, .0.reason)]
pub struct InvalidWebhook(pub Invalid);

impl From<Invalid> for InvalidWebhook {
    fn from(invalid: Invalid) -> Self {
        Self(invalid)
    }
}

impl InvalidWebhook {
    fn new(key: &str, reason: impl Into<String>) -> Self {
        Self(Invalid::new(key, reason))
    }
}

/// A handler that posts events to one URL.
///
/// Its connections belong to the tokio runtime on which they were opened, and end with it.
pub struct Webhook {
    uri: Uri,
    /// Host and port, which errors name; the rest of the URL may be a secret.
    host: String,
    signer: Signer,
    client: HttpClient,
    timeout: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("host", &self.host)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A webhook with these settings. Reads the secrets and the system's root certificates.
    ///
    /// # Errors
    /// The setting that is invalid, its key that below the webhook. An address in the URL that is not
    /// public is invalid unless `allow_private` is set.
    pub fn new(settings: &WebhookSettings) -> Result<Self, InvalidWebhook> {
        Self::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// The same with another way to look up host names.
    ///
    /// # Errors
    /// As [`Webhook::new`].
    pub fn with_lookup(
        settings: &WebhookSettings,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, InvalidWebhook> {
        let url = settings.endpoint()?;
        let timeout = settings.time_limit()?;
        // The connector passes an address by the resolver.
        if let Some((address, why)) = literal(&url).and_then(|a| Some((a, not_public(a)?)))
            && !settings.allow_private
        {
            return Err(InvalidWebhook::new(
                "url",
                format!(
                    "has the address {address}, which is {why}; set allow_private = true if events are \
                     to be sent there"
                ),
            ));
        }
        let uri = url
            .as_str()
            .parse()
            .map_err(|error| InvalidWebhook::new("url", format!("cannot be requested: {error}")))?;
        let signer = Signer::new(&settings.secrets()?)
            .map_err(|error| InvalidWebhook::new("secret", error.to_string()))?;
        let roots = match url.scheme() {
            "https" => {
                client::system_roots().map_err(|reason| InvalidWebhook::new("url", reason))?
            }
            _ => RootCertStore::empty(),
        };
        let resolver = Resolver {
            lookup,
            allow_private: settings.allow_private,
        };
        let client = client::client(resolver, roots, timeout)
            .map_err(|error| InvalidWebhook::new("url", format!("cannot set up TLS: {error}")))?;
        Ok(Self {
            uri,
            host: url.authority().to_owned(),
            signer,
            client,
            timeout,
        })
    }

    /// The signed request of an attempt.
    fn request(&self, run: &Run) -> Result<Request<String>, Box<dyn Error + Send + Sync>> {
        let (id, timestamp) = (run.id(), Utc::now().timestamp());
        let body = cloud_event::text(&run.event)?;
        let signature = self.signer.sign(&id, timestamp, &body);
        let request = Request::post(&self.uri)
            .header(CONTENT_TYPE, cloud_event::MEDIA_TYPE)
            .header(USER_AGENT, concat!("eclusa/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)?;
        Ok(request)
    }
}

#[async_trait]
impl Handler for Webhook {
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        let host = &self.host;
        let failed = |reason: String| HandlerError::Failed(reason);
        let request = self
            .request(run)
            .map_err(|error| failed(format!("cannot make the request: {error}")))?;
        let deadline = Instant::now() + self.timeout;
        let response = timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| {
                let timeout = humantime::format_duration(self.timeout);
                failed(format!("{host} did not answer within {timeout}"))
            })?
            .map_err(|error| failed(format!("cannot send to {host}: {}", root(&error))))?;
        let (answer, body) = response.into_parts();
        let beginning = answer::read_beginning(body, deadline).await;
        answer::outcome(host, answer.status, &answer.headers, &beginning)
    }
}

/// The address that a URL has in place of a name. The URL's parser has made one of each spelling that
/// the system's resolver would take for one: decimal, octal, hexadecimal, short.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// The innermost cause, which is the one that tells most.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, allow_private: bool) -> Result<Webhook, InvalidWebhook> {
        Webhook::new(&WebhookSettings {
            url: url.to_owned(),
            secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
            secret_file: None,
            allow_private,
            timeout: Some(Duration::from_secs(1)),
        })
    }

    #[test]
    fn an_address_is_checked_in_every_spelling() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F.0.0.0x1", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("%31%32%37.0.0.1", "127.0.0.1"),
            ("１２７.0.0.1", "127.0.0.1"),
            ("127。0。0。1", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("0x", "0.0.0.0"),
            ("10.1", "10.0.0.1"),
            ("0xa9fea9fe", "169.254.169.254"),
            ("[::1]", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
            ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
            ("[::127.0.0.1]", "::7f00:1"),
            ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"),
            ("[2002:7f00:1::]", "2002:7f00:1::"),
            ("[fe80::1]", "fe80::1"),
            ("[fd00::1]", "fd00::1"),
        ] {
            let url = format!("http://{host}:8080/hooks");
            let error = made(&url, false).unwrap_err().to_string();
            assert!(error.starts_with("webhook.url"), "{host}: {error}");
            assert!(
                error.contains(&format!("address {address},")),
                "{host}: {error}"
            );
            assert!(error.contains("allow_private = true"), "{host}: {error}");
            assert!(made(&url, true).is_ok(), "{host}");
        }
        for host in [
            "8.8.8.8",
            "[2606:4700::1111]",
            "[64:ff9b::8.8.8.8]",
            "example.org",
        ] {
            assert!(made(&format!("http://{host}/"), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_webhook_shows_its_host_only() {
        let shown = format!("{:?}", made("http://example.org:81/t0ken?k=s3cret", false));
        assert!(shown.contains("example.org:81"), "{shown}");
        assert!(
            !shown.contains("t0ken") && !shown.contains("s3cret"),
            "{shown}"
        );
        assert!(!shown.contains("MfKQ"), "{shown}");
        let error = made("gopher://example.org/t0ken", false).unwrap_err();
        assert!(!error.to_string().contains("t0ken"), "{error}");
    }
}

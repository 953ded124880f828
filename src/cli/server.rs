//! The HTTP client of the commands: while a server holds the embedded mode's file, it alone writes
//! there, and commands go through it.

use crate::app::embedded_lock::{EmbeddedLock, Holder};
use crate::config::{Mode, Settings};
use crate::http::problem::ItemError;
use crate::supervision::Backoff;
use actix_web::web::Bytes;
use anyhow::{Context as _, bail};
use awc::Client;
use awc::error::PayloadError;
use awc::http::header::ACCEPT;
use awc::http::{Method, StatusCode};
use clap::Args;
use futures::Stream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// Longer than a server works on one request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to retry while the server answers 503 or does not answer.
const RETRY_FOR: Duration = Duration::from_secs(120);
/// Largest response that is read.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// Options of commands that a server can carry out.
#[derive(Args, Clone, Default)]
pub struct ServerArgs {
    /// Have this server do it, such as http://127.0.0.1:3000, instead of using the store
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// API key for the server: scope ingest to import, admin for every other change
    #[arg(
        long,
        value_name = "KEY",
        env = "ECLUSA_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

/// What carries out a command.
pub enum Place {
    /// This process, in the store; the lock keeps other processes out meanwhile.
    Here(Option<EmbeddedLock>),
    /// A server.
    There(Server),
}

impl ServerArgs {
    /// Whether a server is named.
    pub fn is_given(&self) -> bool {
        self.server.is_some()
    }

    /// The server named, or the one that holds the embedded mode's file, or this process.
    ///
    /// # Errors
    /// When another command holds the file.
    pub fn place(&self, settings: &Settings) -> anyhow::Result<Place> {
        if let Some(url) = &self.server {
            return Ok(Place::There(Server::new(url, self.api_key.clone())));
        }
        if settings.mode() != Mode::Embedded {
            return Ok(Place::Here(None));
        }
        match EmbeddedLock::take(settings, "")? {
            Holder::Us(lock) => Ok(Place::Here(Some(lock))),
            Holder::Server(Some(url)) => {
                eprintln!("The server at {url} has the data; it does the work.");
                Ok(Place::There(Server::new(&url, self.api_key.clone())))
            }
            Holder::Server(None) => bail!(
                "the data in {} is in use by another command; wait for it to end",
                settings.data_dir.display()
            ),
        }
    }
}

/// A running server.
pub struct Server {
    client: Client,
    url: String,
    key: Option<String>,
}

impl Server {
    /// The server at `url`, such as `http://127.0.0.1:3000`.
    fn new(url: &str, key: Option<String>) -> Self {
        Self {
            client: Client::builder().timeout(TIMEOUT).finish(),
            url: url.trim_end_matches('/').to_owned(),
            key,
        }
    }

    /// Reads JSON, and retries while the server cannot answer now.
    ///
    /// # Errors
    /// When the server refuses the request, or stays unable for two minutes.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.request(Method::GET, path, &[]).await
    }

    /// Posts JSON, and retries while the server cannot do it now or does not answer.
    ///
    /// # Errors
    /// When the server refuses the request, or stays unable for two minutes.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> anyhow::Result<T> {
        self.request(Method::POST, path, body).await
    }

    /// Gives a command whose response does not matter.
    ///
    /// # Errors
    /// As [`Server::post`].
    pub async fn command(&self, path: &str) -> anyhow::Result<()> {
        self.post::<serde_json::Value>(path, b"{}")
            .await
            .map(|_| ())
    }

    /// Opens a stream of lines behind a position, or where the path says. The inner error is one that may pass.
    ///
    /// # Errors
    /// The server refuses the request.
    pub async fn lines(
        &self,
        path: &str,
        behind: Option<&str>,
    ) -> anyhow::Result<
        Result<impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + use<>, String>,
    > {
        let mut request = self
            .client
            .get(format!("{}{path}", self.url))
            .insert_header((ACCEPT, "application/x-ndjson"));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(position) = behind {
            request = request.insert_header(("last-event-id", position));
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(Err(format!("the server does not answer: {error}"))),
        };
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(Ok(response));
        }
        let text = response.body().limit(MAX_RESPONSE).await?;
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Ok(Err(refusal(status, &text)))
            }
            status => bail!(refusal(status, &text)),
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let reason = match self.try_request(&method, path, body).await? {
                Ok(reply) => return Ok(reply),
                Err(reason) => reason,
            };
            if began.elapsed() > RETRY_FOR {
                bail!("{reason}; run it again later");
            }
            tracing::warn!(reason, "retrying");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// The inner error is one that may pass.
    async fn try_request<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Result<T, String>> {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.url))
            .content_type("application/json");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut response = match request.send_body(body.to_vec()).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(format!("the server does not answer: {error}"))),
        };
        let text = response.body().limit(MAX_RESPONSE).await?;
        match response.status() {
            StatusCode::OK | StatusCode::ACCEPTED => serde_json::from_slice(&text)
                .map(Ok)
                .context("the server's response is not Eclusa's"),
            StatusCode::NO_CONTENT => serde_json::from_slice(b"null")
                .map(Ok)
                .context("the server's response is not Eclusa's"),
            status @ (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                Ok(Err(refusal(status, &text)))
            }
            status => bail!(refusal(status, &text)),
        }
    }
}

/// The parts of a [`Problem`](crate::http::problem::Problem) that a person reads.
#[derive(Deserialize)]
struct Refusal {
    detail: String,
    #[serde(default)]
    errors: Vec<ItemError>,
}

/// The words of a response that is no success: those that the command says when it does the work itself.
fn refusal(status: StatusCode, text: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(text) {
        Ok(Refusal { detail, errors }) => {
            let errors = errors.iter().map(|error| format!("\n  {error}"));
            detail + &errors.collect::<String>()
        }
        Err(_) => format!(
            "the server answered {status}: {}",
            String::from_utf8_lossy(text)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let told = |text: &str| refusal(StatusCode::CONFLICT, text.as_bytes());
        let problem = r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"reaction r is running"}"#;
        assert_eq!(told(problem), "reaction r is running");
        let items = r#"{"detail":"1 of 2 events are not valid","errors":[
            {"index":1,"field":"userId","reason":"is missing"},{"index":2,"field":"","reason":"is no object"}]}"#;
        assert_eq!(
            told(items),
            "1 of 2 events are not valid\n  item 1: userId: is missing\n  item 2: is no object"
        );
        assert_eq!(told("<html>"), "the server answered 409 Conflict: <html>");
    }
}

//! Replay and purge by a running server, over HTTP: while it has the embedded mode's file, it alone
//! writes there.

use super::progress_bar;
use crate::event::frame::rfc3339;
use crate::retry::replay::{NotReplayed, Replay, Report};
use crate::store::dead_letters::{LetterFilter, LetterState};
use crate::supervision::Backoff;
use anyhow::{Context as _, bail};
use awc::Client;
use awc::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longer than a server works on one request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server that cannot do it now is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server.
pub struct Server {
    client: Client,
    url: String,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplayAnswer {
    matched: u64,
    replayed: u64,
    failed: u64,
    failures: Vec<NotReplayed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct PurgeAnswer {
    matched: u64,
    purged: u64,
}

impl Server {
    /// A server at `url`, such as `http://127.0.0.1:3000`.
    pub fn new(url: &str, key: Option<String>) -> Self {
        Self {
            client: Client::builder().timeout(TIMEOUT).finish(),
            url: format!("{}/v1/dead-letters", url.trim_end_matches('/')),
            key,
        }
    }

    /// One piece of a replay: how many letters passed the filter, and what was done.
    ///
    /// # Errors
    /// When the server refuses, or cannot do it for long.
    pub async fn replay(&self, replay: &Replay) -> anyhow::Result<(u64, Report)> {
        let mut body = members(&replay.filter);
        let mut set = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        set("dryRun", replay.dry_run.into());
        if let Some(limit) = replay.limit {
            set("limit", limit.into());
        }
        if let Some(rate) = replay.rate {
            set("ratePerSecond", rate.into());
        }
        if let Some(cursor) = replay.cursor {
            set("cursor", cursor.to_string().into());
        }
        let answer: ReplayAnswer = self.post("replay", &Value::Object(body)).await?;
        let next = match answer.next.map(|next| next.parse()) {
            None => None,
            Some(Ok(next)) => Some(next),
            Some(Err(())) => bail!("the server's answer is not Eclusa's"),
        };
        let report = Report {
            replayed: answer.replayed,
            failed: answer.failed,
            failures: answer.failures,
            next,
            stopped: None,
        };
        Ok((answer.matched, report))
    }

    /// Purges in pieces until nothing is left or `limit` is reached.
    ///
    /// # Errors
    /// As [`Server::replay`].
    pub async fn purge(&self, filter: &LetterFilter, limit: u64) -> anyhow::Result<u64> {
        let mut purged = 0;
        let mut bar = None;
        loop {
            let mut body = members(filter);
            body.insert("limit".to_owned(), (limit - purged).into());
            body.insert("all".to_owned(), true.into());
            let answer: PurgeAnswer = self.post("purge", &Value::Object(body)).await?;
            let bar = bar.get_or_insert_with(|| progress_bar(answer.matched.min(limit)));
            purged += answer.purged;
            bar.set_position(purged);
            if answer.purged == 0 || answer.purged >= answer.matched || purged >= limit {
                bar.finish_and_clear();
                return Ok(purged);
            }
        }
    }

    /// Posts, again and again while the server cannot do it now.
    async fn post<T: DeserializeOwned>(&self, what: &str, body: &Value) -> anyhow::Result<T> {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let reason = match self.try_post(what, body).await? {
                Ok(answer) => return Ok(answer),
                Err(reason) => reason,
            };
            if began.elapsed() > PATIENCE {
                bail!("{reason}; run it again later");
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    async fn try_post<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &Value,
    ) -> anyhow::Result<Result<T, String>> {
        let mut request = self.client.post(format!("{}/{what}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut response = match request.send_json(body).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(format!("the server does not answer: {error}"))),
        };
        let text = response.body().limit(16 * 1024 * 1024).await?;
        match response.status() {
            StatusCode::OK => serde_json::from_slice(&text)
                .map(Ok)
                .context("the server's answer is not Eclusa's"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Ok(Err(String::from_utf8_lossy(&text).into_owned()))
            }
            status => bail!(
                "the server answered {status}: {}",
                String::from_utf8_lossy(&text)
            ),
        }
    }
}

/// A filter as a request spells it.
fn members(filter: &LetterFilter) -> serde_json::Map<String, Value> {
    let all = json!({
        "ids": filter.ids,
        "cause": filter.cause,
        "eventType": filter.event_type,
        "from": filter.from.map(rfc3339),
        "to": filter.to.map(rfc3339),
        "state": filter.state.map(LetterState::as_str),
    });
    match all {
        Value::Object(members) => members.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => serde_json::Map::new(),
    }
}

//! Drains a stream to NDJSON: each message is a line on standard output, written before it is acknowledged.
//!
//! ```console
//! $ cargo run --example collector -- http://127.0.0.1:3000/api/pix/00000000/stream/start > messages.ndjson
//! $ cargo run --example collector -- --until-empty http://127.0.0.1:3000/v1/streams/orders/store-7/start
//! ```
//!
//! With an API key in `ECLUSA_API_KEY`. It ends on SIGINT or SIGTERM, or with `--until-empty` at the first answer
//! without messages, and then ends its session. What it has written and not acknowledged comes again: to it, if it
//! repeats a call whose answer it has lost, or to the next collector.

use anyhow::{Context, bail};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Longer than the server waits for messages.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Pause before a call is repeated that failed.
const AGAIN: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let until_empty = arguments.iter().any(|argument| argument == "--until-empty");
    arguments.retain(|argument| argument != "--until-empty");
    let [start] = arguments.as_slice() else {
        bail!("usage: collector [--until-empty] URL, where URL ends in /start");
    };
    let start: Url = start.parse().context("the URL cannot be read")?;
    let client = client()?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut url = start.clone();
    loop {
        let response = tokio::select! {
            response = call(&client, &url) => response?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => {
                let next = next(&start, &response)?;
                let is_empty = response.status() == StatusCode::NO_CONTENT;
                // An answer that is lost here comes again for the same URL.
                let Ok(body) = response.text().await else {
                    continue;
                };
                if !is_empty {
                    write(&body)?;
                }
                // From here on the next call acknowledges it.
                url = next;
                if is_empty && until_empty {
                    break;
                }
            }
            // The session has lapsed; what it had is handed out again.
            StatusCode::GONE => url = start.clone(),
            status => bail!("{status}: {}", response.text().await.unwrap_or_default()),
        }
    }
    if url != start {
        // 410 is as good: the session has ended by itself.
        client.delete(url).send().await?;
    }
    Ok(())
}

fn client() -> anyhow::Result<Client> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("multipart/json"));
    if let Ok(key) = std::env::var("ECLUSA_API_KEY") {
        let value = HeaderValue::from_str(&format!("Bearer {key}"))?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(Client::builder()
        .default_headers(headers)
        .timeout(TIMEOUT)
        .build()?)
}

/// Calls until there is an answer that says something about the session.
async fn call(client: &Client, url: &Url) -> anyhow::Result<Response> {
    loop {
        match client.get(url.clone()).send().await {
            Ok(response) if response.status().is_server_error() => {
                eprintln!("{}, again in {AGAIN:?}", response.status());
            }
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                eprintln!("all streams are taken, again in {AGAIN:?}");
            }
            Ok(response) => return Ok(response),
            Err(error) => eprintln!("{error}, again in {AGAIN:?}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn next(start: &Url, response: &Response) -> anyhow::Result<Url> {
    let path = response
        .headers()
        .get("pull-next")
        .context("the answer has no Pull-Next")?;
    Ok(start.join(path.to_str()?)?)
}

/// The answer of a stream that is not of Pix messages.
#[derive(Deserialize)]
struct Answer {
    messages: Vec<Box<RawValue>>,
}

/// Writes the messages of an answer: Pix answers are an array. Numbers stay as they stand.
fn write(answer: &str) -> anyhow::Result<()> {
    let messages = match answer.starts_with('[') {
        true => serde_json::from_str(answer)?,
        false => serde_json::from_str::<Answer>(answer)?.messages,
    };
    let mut out = std::io::stdout().lock();
    for message in messages {
        // A line break inside a message stands between its parts, never in a string.
        writeln!(out, "{}", message.get().replace(['\n', '\r'], " "))?;
    }
    out.flush()?;
    Ok(())
}

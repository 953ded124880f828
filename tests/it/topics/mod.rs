//! Streams of events over real HTTP, on both stores.

mod closing;
mod command_line;
mod flights;
mod gone;
mod losses;
mod many;
mod reading;
mod slow;
mod types;

use crate::followers::Place;
use crate::harness::{App, eventually};
use reqwest::header::{ACCEPT, AUTHORIZATION};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Much longer than anything takes.
const SOON: Duration = Duration::from_secs(60);

/// What a client asks for.
#[derive(Clone, Default)]
pub struct Ask {
    pub event_type: Option<String>,
    pub from: Option<String>,
    pub follow: Option<bool>,
    pub last_event_id: Option<String>,
    pub key: Option<String>,
    pub ndjson: bool,
    pub schema: Option<String>,
}

impl Ask {
    pub fn from(from: &str) -> Self {
        Self {
            from: Some(from.to_owned()),
            ..Self::default()
        }
    }

    pub fn behind(id: &str) -> Self {
        Self {
            last_event_id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    pub fn of(mut self, event_type: &str) -> Self {
        self.event_type = Some(event_type.to_owned());
        self
    }

    pub fn until_the_end(mut self) -> Self {
        self.follow = Some(false);
        self
    }

    pub async fn send(&self, app: &App) -> Response {
        self.send_to(app.url()).await.unwrap()
    }

    /// The same for when the server may be away.
    pub async fn send_to(&self, server: &str) -> reqwest::Result<Response> {
        let event_type = self.event_type.as_deref().unwrap_or("*");
        let mut url = reqwest::Url::parse(server).unwrap();
        url.path_segments_mut()
            .unwrap()
            .extend(["v1", "topics", event_type, "events"]);
        if let Some(from) = &self.from {
            url.query_pairs_mut().append_pair("from", from);
        }
        if let Some(follow) = self.follow {
            let follow = follow.to_string();
            url.query_pairs_mut().append_pair("follow", &follow);
        }
        if let Some(schema) = &self.schema {
            url.query_pairs_mut().append_pair("schema", schema);
        }
        let mut request = Client::builder().no_proxy().build().unwrap().get(url);
        if let Some(id) = &self.last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if self.ndjson {
            request = request.header(ACCEPT, "application/x-ndjson");
        }
        request.send().await
    }

    /// A stream, which there must be.
    pub async fn open(&self, app: &App) -> Events {
        let response = self.send(app).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events::of(response)
    }

    /// What a client is told that gets none.
    pub async fn refused(&self, app: &App, status: StatusCode) -> String {
        let response = self.send(app).await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        body["detail"].as_str().unwrap().to_owned()
    }
}

/// A block of a stream.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Block {
    pub id: Option<String>,
    pub kind: Option<String>,
    pub data: Option<Value>,
    pub comment: Option<String>,
}

impl Block {
    /// One that is an event has its id.
    pub fn event_id(&self) -> Option<Uuid> {
        let id = self.data.as_ref().filter(|_| self.kind.is_none())?["id"].as_str()?;
        Some(id.parse().unwrap())
    }
}

/// Server-sent events as they come.
pub struct Events {
    response: Response,
    text: Vec<u8>,
    blocks: VecDeque<Block>,
    /// What a client would go on with.
    pub last_id: String,
}

impl Events {
    pub fn of(response: Response) -> Self {
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self {
            response,
            text: Vec::new(),
            blocks: VecDeque::new(),
            last_id: String::new(),
        }
    }

    /// The next block; `None` at the end, which must be a clean one.
    pub async fn block(&mut self) -> Option<Block> {
        self.try_block().await.expect("the stream ends cleanly")
    }

    /// The same for when the server may be killed.
    pub async fn try_block(&mut self) -> reqwest::Result<Option<Block>> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                if let Some(id) = &block.id {
                    self.last_id.clone_from(id);
                }
                return Ok(Some(block));
            }
            let part = timeout(SOON, self.response.chunk()).await;
            let Some(part) = part.expect("there is something within a minute")? else {
                assert!(self.text.is_empty(), "the stream ends within a block");
                return Ok(None);
            };
            self.text.extend_from_slice(&part);
            while let Some(end) = memchr::memmem::find(&self.text, b"\n\n") {
                let text: Vec<u8> = self.text.drain(..end + 2).collect();
                self.blocks
                    .push_back(parse(std::str::from_utf8(&text).unwrap()));
            }
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.event_id().is_some() {
                return block;
            }
            assert_eq!(block.kind, None, "{block:?}");
        }
    }

    /// The ids of the next events.
    pub async fn ids(&mut self, number: usize) -> Vec<Uuid> {
        let mut ids = Vec::new();
        while ids.len() < number {
            ids.extend(self.event().await.event_id());
        }
        ids
    }

    /// All up to the end: the ids of the events, and the last block.
    pub async fn rest(&mut self) -> (Vec<Uuid>, Block) {
        let (mut ids, mut last) = (Vec::new(), Block::default());
        while let Some(block) = self.block().await {
            ids.extend(block.event_id());
            last = block;
        }
        (ids, last)
    }

    /// Why the server ends the stream.
    pub async fn reason(&mut self) -> String {
        let (_, last) = self.rest().await;
        assert_eq!(last.kind.as_deref(), Some("error"), "{last:?}");
        last.data.unwrap()["reason"].as_str().unwrap().to_owned()
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ").unwrap() {
            ("id", id) => block.id = Some(id.to_owned()),
            ("event", kind) => block.kind = Some(kind.to_owned()),
            ("data", data) => block.data = Some(serde_json::from_str(data).unwrap()),
            ("", comment) => block.comment = Some(comment.to_owned()),
            ("retry", _) => {}
            other => panic!("{other:?}"),
        }
    }
    block
}

/// Sends events, each of the next type of these.
pub async fn post(app: &App, types: &[&str], number: usize) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..number).map(|_| Uuid::now_v7()).collect();
    let event = |(n, id): (usize, &Uuid)| {
        let event_type = types[n % types.len()];
        json!({"id": id, "userId": "u", "eventType": event_type, "eventData": {"n": n}})
    };
    let events: Vec<Value> = ids.iter().enumerate().map(event).collect();
    let response = app.post("/v1/events", &events.into()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    ids
}

/// Waits until the log has so many events, and gives them in its order.
pub async fn log_of(place: &Place, number: usize) -> Vec<Uuid> {
    eventually(SOON, "the log has all events", async || {
        place.store.number_commits().await.unwrap();
        let log = place.log().await;
        (log.len() >= number).then_some(log)
    })
    .await
}

/// Waits for subscribers in a state.
pub async fn subscribers(app: &App, state: &str, number: usize) {
    eventually(SOON, "so many subscribers are there", async || {
        let labels = [("state", state)];
        let found = app.metric_with("eclusa_topic_subscribers", &labels).await;
        (found == number as f64).then_some(())
    })
    .await;
}

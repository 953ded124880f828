//! Outlets of the settings: what consumers get at a real RabbitMQ, and in which order.

mod cloud_events;
mod exchange;
mod ingest;
mod killed;
mod limits;
mod operating;
mod outage;
mod python;
mod settings;
mod stream;

use crate::followers::{Place, SOON};
use crate::harness::{App, eventually};
use eclusa::store::commit_log::{LoggedEvent, Selection, Span, TypePatterns};
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// The one outlet of most tests, and its follower.
const NAME: &str = "all";
const FOLLOWER: &str = "outlets.all";
const STREAM: &str = "everything";

/// An outlet of all events to the stream [`STREAM`], with more settings or others.
fn to_stream(url: &str, more: Value) -> Value {
    let outlet = json!({
        "name": NAME, "types": ["*"], "url": url, "stream": STREAM, "start": "beginning",
    });
    with(outlet, more)
}

/// An outlet of all events to the exchange `shop`.
fn to_exchange(url: &str, more: Value) -> Value {
    let outlet = json!({
        "name": NAME, "types": ["*"], "url": url, "exchange": "shop", "start": "beginning",
    });
    with(outlet, more)
}

fn with(mut outlet: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        outlet[key] = value.clone();
    }
    json!([outlet])
}

/// A consumer of a queue, or of a stream from its beginning.
pub struct Reader {
    consumer: Consumer,
    seen: Vec<Delivery>,
    _connection: Connection,
}

impl Reader {
    pub async fn of_stream(url: &str, stream: &str) -> Self {
        let mut arguments = FieldTable::default();
        let first = AMQPValue::LongString("first".into());
        arguments.insert("x-stream-offset".into(), first);
        eventually(SOON, "there is a stream", async || {
            Self::of(url, stream, arguments.clone()).await.ok()
        })
        .await
    }

    async fn of_queue(url: &str, queue: &str) -> Self {
        Self::of(url, queue, FieldTable::default()).await.unwrap()
    }

    async fn of(url: &str, queue: &str, arguments: FieldTable) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let prefetch = BasicQosOptions::default();
        channel.basic_qos(500, prefetch).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue.into(), "reader".into(), options, arguments)
            .await?;
        Ok(Self {
            consumer,
            seen: Vec::new(),
            _connection: connection,
        })
    }

    async fn next(&mut self) {
        let message = tokio::time::timeout(SOON, self.consumer.next()).await;
        let message = message.unwrap_or_else(|_| panic!("no message behind {}", self.seen.len()));
        let message = message.unwrap().unwrap();
        message.acker.ack(BasicAckOptions::default()).await.unwrap();
        self.seen.push(message);
    }

    /// Reads until so many messages are read.
    pub async fn messages(&mut self, count: usize) -> &[Delivery] {
        while self.seen.len() < count {
            self.next().await;
        }
        &self.seen
    }

    /// Reads until all of these ids are read.
    pub async fn all_of(&mut self, ids: &[String]) {
        let mut missing: HashSet<String> = ids.iter().cloned().collect();
        for message in &self.seen {
            missing.remove(&id(message));
        }
        while !missing.is_empty() {
            self.next().await;
            missing.remove(&id(self.seen.last().unwrap()));
        }
    }

    pub fn ids(&self) -> Vec<String> {
        self.seen.iter().map(id).collect()
    }
}

/// The message id.
fn id(message: &Delivery) -> String {
    let id = message.properties.message_id().clone();
    id.expect("a message id").to_string()
}

pub fn body(message: &Delivery) -> Value {
    serde_json::from_slice(&message.data).unwrap()
}

fn header(message: &Delivery, name: &str) -> String {
    let headers = message.properties.headers().clone().unwrap();
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The ids without repeats, each where it came first.
pub fn first_deliveries(ids: &[String]) -> Vec<String> {
    let mut known = HashSet::new();
    ids.iter().filter(|id| known.insert(*id)).cloned().collect()
}

/// What the log has of these types, in its order.
async fn logged(place: &Place, types: &[&str]) -> Vec<LoggedEvent> {
    place.store.number_commits().await.unwrap();
    let selection = Selection {
        types: TypePatterns::new(types.iter().copied()),
        ..Selection::default()
    };
    let (mut events, mut span) = (Vec::new(), Span::after(Default::default(), 1_000));
    loop {
        let chunk = place.store.read_after(&selection, span).await.unwrap();
        events.extend(chunk.events);
        if chunk.read_to <= span.after {
            return events;
        }
        span.after = chunk.read_to;
    }
}

async fn logged_ids(place: &Place, types: &[&str]) -> Vec<String> {
    let events = logged(place, types).await;
    let id = |logged: LoggedEvent| logged.event.event_id.to_string();
    events.into_iter().map(id).collect()
}

/// Sends events with numbers until the server has taken them.
async fn post(app: &App, event_type: &str, numbers: std::ops::Range<usize>) {
    let events: Value = numbers
        .map(|n| json!({"id": format!("e{n}"), "userId": "u", "eventType": event_type, "eventData": {"n": n}}))
        .collect();
    eventually(SOON, "the events are taken", async || {
        let sent = app.try_post("/v1/events", "application/json", events.to_string());
        sent.await.ok()?.status().is_success().then_some(())
    })
    .await;
}

async fn follower(app: &App) -> Value {
    app.get_json(&format!("/v1/followers/{FOLLOWER}")).await
}

/// Waits until the outlet has sent all that the log has.
async fn caught_up(app: &App) {
    eventually(SOON, "the outlet has sent everything", async || {
        (follower(app).await["behind"]["events"] == 0).then_some(())
    })
    .await;
}

async fn state(app: &App, wanted: &str) -> Value {
    eventually(SOON, &format!("the outlet is {wanted}"), async || {
        let shown = follower(app).await;
        (shown["state"] == wanted).then_some(shown)
    })
    .await
}

/// Waits until the outlet has failed in this way.
async fn fails(app: &App, kind: &str) {
    eventually(SOON, &format!("the outlet fails: {kind}"), async || {
        let labels = [("follower", FOLLOWER), ("kind", kind)];
        let failures = app.metric_with("eclusa_follower_failures_total", &labels);
        (failures.await > 0.0).then_some(())
    })
    .await;
}

async fn command(app: &App, action: &str, body: Value) -> (u16, Value) {
    let path = format!("/v1/followers/{FOLLOWER}/{action}");
    let response = app.post(&path, &body).await;
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

/// A server whose outlets come soon to what they missed.
async fn start(place: &Place, outlets: Value) -> App {
    let app = place.app().set("outlets", outlets).start().await;
    app.wait_ready().await;
    app
}

/// How long a confirm may take where a test waits for its absence.
const SHORT: Duration = Duration::from_secs(2);

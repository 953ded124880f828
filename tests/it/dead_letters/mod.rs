//! What cannot be stored is put aside with its bytes and its cause, can be looked at, replayed when
//! the cause is mended, and purged.

mod by_http;
mod command_line;
mod direct_modes;
mod full_mode;
mod killed;

use crate::harness::{App, AppBuilder, Postgres, RabbitMq, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Makes every event of the type `bad` a row that PostgreSQL refuses.
const FORBID: &str = "ALTER TABLE user_interactions \
    ADD CONSTRAINT no_bad CHECK (event_type <> 'bad') NOT VALID";
const ALLOW: &str = "ALTER TABLE user_interactions DROP CONSTRAINT no_bad";

/// An app on a PostgreSQL database of its own.
struct Bench {
    app: App,
    database: String,
    vhost: Option<String>,
}

impl Bench {
    async fn database(set: impl FnOnce(AppBuilder) -> AppBuilder) -> Self {
        let database = Postgres::shared().await.database().await;
        let app = set(App::builder().postgres(&database)).start().await;
        app.wait_ready().await;
        Self {
            app,
            database,
            vhost: None,
        }
    }

    async fn full(set: impl FnOnce(AppBuilder) -> AppBuilder) -> Self {
        let vhost = RabbitMq::shared().await.vhost().await;
        let mut bench =
            Self::database(|builder| set(builder.rabbitmq(&vhost).set("batch.max_wait", "200ms")))
                .await;
        bench.vhost = Some(vhost);
        bench
    }

    fn vhost(&self) -> &str {
        self.vhost.as_deref().unwrap()
    }

    async fn sql(&self, sql: &str) {
        Postgres::shared().await.execute(&self.database, sql).await;
    }

    async fn count(&self, from: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {from}");
        let rows = Postgres::shared().await.query(&self.database, &sql, &[]);
        rows.await[0].get(0)
    }

    async fn wait_count(&self, from: &str, count: i64) {
        eventually(SOON, &format!("{count} of {from}"), async || {
            (self.count(from).await >= count).then_some(())
        })
        .await;
        assert_eq!(self.count(from).await, count, "{from}");
    }

    /// Posts events of the type `good` or `bad`, numbered from `from`, in one request.
    async fn post(&self, kind: &str, from: usize, count: usize) -> Value {
        post(&self.app, kind, from, count).await
    }
}

fn events(kind: &str, from: usize, count: usize) -> Value {
    (from..from + count)
        .map(|n| {
            let id = format!("{kind}-{n}");
            json!({"id": id, "userId": "u", "eventType": kind, "eventData": {"n": n}})
        })
        .collect()
}

async fn post(app: &App, kind: &str, from: usize, count: usize) -> Value {
    let response = app.post("/v1/events", &events(kind, from, count)).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 202, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// All letters that pass a query, with a page of two at a time.
async fn letters(app: &App, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/dead-letters?limit=2{query}{cursor}");
        let page = app.get_json(&path).await;
        found.extend(page["deadLetters"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

async fn letter(app: &App, id: &Value) -> Value {
    let id = id.as_str().unwrap();
    app.get_json(&format!("/v1/dead-letters/{id}")).await
}

/// Waits until so many letters are dead.
async fn wait_dead(app: &App, count: usize) -> Vec<Value> {
    eventually(SOON, &format!("{count} dead letters"), async || {
        let found = letters(app, "&state=dead").await;
        (found.len() == count).then_some(found)
    })
    .await
}

async fn act(app: &App, what: &str, body: Value) -> Value {
    let response = app.post(&format!("/v1/dead-letters/{what}"), &body).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{what} {body}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Arms a failpoint of the running process.
async fn arm(app: &App, point: &str, action: &'static str) {
    let response = reqwest::Client::new()
        .put(format!("{}/failpoints/{point}", app.url()))
        .body(action)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 204);
}

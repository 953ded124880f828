//! A captured table with large values, and its records.

use crate::harness::{App, AppBuilder, connect, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Much longer than it takes.
pub const SOON_ENOUGH: Duration = Duration::from_secs(120);

/// A row without its key.
type Row = (Value, Value);

/// The table and what captures it.
pub struct Stock {
    pub url: String,
    pub app: App,
}

impl Stock {
    /// Makes the table with this many rows, whose bodies are stored apart from them.
    pub async fn fill(url: &str, rows: u32) {
        let client = connect(url).await;
        let fill = format!(
            "CREATE TABLE stock (id bigint PRIMARY KEY, name text, body text); \
             ALTER TABLE stock ALTER body SET STORAGE EXTERNAL; \
             INSERT INTO stock SELECT n, 'before', repeat(md5(n::text), 80) FROM generate_series(1, {rows}) AS n"
        );
        client.batch_execute(&fill).await.unwrap();
    }

    /// Captures the table of this database.
    pub async fn capture(url: &str, app: AppBuilder) -> Self {
        let app = app
            .set("captures", json!([settings(url)]))
            .set("store.lease_ttl", "2s");
        Self {
            url: url.to_owned(),
            app: app.start().await,
        }
    }

    pub fn path(&self) -> String {
        format!("/v1/captures/{}", name(&self.url))
    }

    /// The table as the capture shows it, if there is one yet.
    pub async fn shown(&self) -> Option<Value> {
        let response = self.app.get(&self.path()).await;
        let view: Value = response.json().await.ok()?;
        view["tables"].get(0).cloned()
    }

    /// The captures in the answer of the readiness probe, which finds the process ready.
    pub async fn ready(&self) -> Value {
        let ready = self.app.get_json("/health/ready").await;
        assert_eq!(ready["status"], "ready");
        ready["parts"]["captures"].clone()
    }

    /// Waits until the probe shows trouble of these words.
    pub async fn has_trouble(&self, words: &str) {
        eventually(SOON_ENOUGH, &format!("trouble: {words}"), async || {
            let captures = self.ready().await;
            let is_so = captures["detail"].as_str()?.contains(words);
            (is_so && captures["status"] == "down").then_some(())
        })
        .await;
    }

    /// Gives it a command.
    pub async fn command(&self, command: &str) {
        let path = format!("{}/{command}", self.path());
        let done = self.app.post(&path, &json!({})).await;
        assert_eq!(done.status().as_u16(), 200);
    }

    /// Waits until the table was read.
    pub async fn read(&self) {
        eventually(SOON_ENOUGH, "the table is read", async || {
            let table = self.shown().await?;
            (!table["doneAt"].is_null()).then_some(())
        })
        .await;
    }

    /// The records, oldest first.
    pub async fn records(&self) -> Vec<Value> {
        let (mut records, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("/v1/events?limit=500{cursor}");
            let page = self.app.get_json(&page).await;
            let events = page["events"].as_array().unwrap().iter();
            records.extend(events.map(|event| event["eventData"].clone()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        records.reverse();
        records
    }

    /// Waits until all that is written by now was captured; gives the records.
    pub async fn caught_up(&self) -> Vec<Value> {
        let client = connect(&self.url).await;
        let last = "INSERT INTO stock VALUES (1000000, 'last', '')";
        client.batch_execute(last).await.unwrap();
        eventually(SOON_ENOUGH, "the last row is captured", async || {
            let newest = self.app.get_json("/v1/events?limit=100").await;
            let events = newest["events"].as_array().unwrap();
            let is_last = |event: &Value| event["eventData"]["id"] == 1_000_000;
            events.iter().any(is_last).then_some(())
        })
        .await;
        self.records().await
    }

    /// The rows of the table.
    pub async fn rows(&self) -> BTreeMap<i64, Row> {
        let client = connect(&self.url).await;
        let rows = client.query("SELECT id, name, body FROM stock", &[]).await;
        let rows = rows.unwrap();
        let text = |text: Option<&str>| Value::from(text);
        let row = |row: &tokio_postgres::Row| (row.get(0), (text(row.get(1)), text(row.get(2))));
        rows.iter().map(row).collect()
    }
}

/// The capture of the table.
pub fn settings(url: &str) -> Value {
    json!({ "name": name(url), "url": url, "tables": ["public.stock"], "chunk_rows": 20 })
}

/// The name of the database, and of its capture.
pub fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

/// How many rows snapshots have read.
pub fn number_read(records: &[Value]) -> usize {
    records.iter().filter(|record| record["op"] == "r").count()
}

/// The rows that the records make.
pub fn replay(records: &[Value]) -> BTreeMap<i64, Row> {
    let mut rows: BTreeMap<i64, Row> = BTreeMap::new();
    for record in records {
        let id = record["key"]["id"].as_i64().unwrap();
        let old = record["oldKey"]["id"].as_i64().unwrap_or(id);
        let before = rows.remove(&old).unwrap_or_default();
        if record["op"] != "d" {
            // What the update left out stays, if it is known.
            let body = record.get("body").cloned().unwrap_or(before.1);
            rows.insert(id, (record["name"].clone(), body));
        }
    }
    rows
}

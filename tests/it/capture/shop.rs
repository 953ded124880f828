//! A shop: a database whose tables the program captures, and the records that come of it.

use crate::harness::{App, AppBuilder, Postgres, connect, eventually};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

pub const TABLES: [&str; 3] = ["public.product", "public.stock", "public.sale"];
/// Much longer than it takes to catch up.
pub const CAUGHT_UP: Duration = Duration::from_secs(90);
/// The first of the rows that are written last.
const LAST: i64 = 1_000_000;

/// A fresh database with the tables of a shop.
pub async fn tables(postgres: &Postgres) -> String {
    let url = postgres.database().await;
    for table in TABLES {
        let create = format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, name text NOT NULL, quantity int, body text)"
        );
        postgres.execute(&url, &create).await;
    }
    url
}

/// Rows of a table that are there before they are captured, one half of them with a value that is stored apart from its row.
pub async fn fill_stock(url: &str, rows: u32) {
    let fill = format!(
        "INSERT INTO stock SELECT n, 'before', n, CASE n % 2 WHEN 0 THEN \
         (SELECT string_agg(md5((n * 1000 + m)::text), '') FROM generate_series(1, 100) AS m) END \
         FROM generate_series(1, {rows}) AS n"
    );
    connect(url).await.batch_execute(&fill).await.unwrap();
}

/// The settings of a capture of these tables. Slots are known by their names in the whole server, so each database has
/// a capture with a name of its own.
pub fn capture(url: &str) -> Value {
    json!([{ "name": name(url), "url": url, "tables": TABLES, "chunk_rows": 50 }])
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

/// A server that captures the tables of a database, and that database.
pub struct Shop {
    pub url: String,
    pub app: App,
    /// Of the embedded store.
    _folder: Option<TempDir>,
    last: i64,
}

impl Shop {
    /// On the shared server. `embedded`: events are stored in SQLite, and otherwise in the captured database.
    pub async fn start(embedded: bool) -> Self {
        let url = tables(Postgres::shared().await).await;
        Self::of(url, embedded, |app| app).await
    }

    /// Of a database that is there, with more settings or others.
    pub async fn of(
        url: String,
        embedded: bool,
        set: impl FnOnce(AppBuilder) -> AppBuilder,
    ) -> Self {
        let folder = embedded.then(|| tempfile::tempdir().unwrap());
        let app = match &folder {
            Some(folder) => App::builder().embedded(folder.path()),
            None => App::builder().postgres(&url),
        };
        let app = app
            .set("captures", capture(&url))
            .set("store.lease_ttl", "2s");
        Self {
            app: set(app).start().await,
            url,
            _folder: folder,
            last: LAST,
        }
    }

    /// The path of the capture in the API.
    pub fn path(&self) -> String {
        format!("/v1/captures/{}", name(&self.url))
    }

    /// The label of the capture in metrics.
    pub fn label(&self) -> [(&'static str, &str); 1] {
        [("capture", name(&self.url))]
    }

    pub async fn execute(&self, sql: &str) {
        let done = connect(&self.url).await.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// How many slots of the database the server has.
    pub async fn slots(&self) -> i64 {
        let count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        let client = connect(&self.url).await;
        client.query_one(count, &[]).await.unwrap().get(0)
    }

    /// The capture as the API shows it; `None` while the store is away.
    pub async fn shown(&self) -> Option<Value> {
        let response = self.app.get(&self.path()).await;
        let is_shown = response.status().is_success();
        let view: Value = response.json().await.unwrap();
        is_shown.then_some(view)
    }

    /// Waits until the capture is in this state.
    pub async fn until(&self, state: &str) -> Value {
        eventually(CAUGHT_UP, &format!("the capture is {state}"), async || {
            self.shown().await.filter(|view| view["state"] == state)
        })
        .await
    }

    /// Has the capture do what a command of the API says.
    pub async fn command(&self, action: &str, body: &Value) -> u16 {
        let path = format!("{}/{action}", self.path());
        self.app.post(&path, body).await.status().as_u16()
    }

    /// Waits until the snapshots of all tables are complete.
    pub async fn all_read(&self) {
        eventually(CAUGHT_UP, "all tables are read", async || {
            let view = self.shown().await?;
            let tables = view["tables"].as_array().unwrap();
            // There are none before it has begun.
            let are_done = tables.iter().all(|table| !table["doneAt"].is_null());
            (are_done && !tables.is_empty()).then_some(())
        })
        .await;
    }

    /// All records, oldest first.
    pub async fn records(&self) -> Vec<Value> {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/events?limit=1000{cursor}");
            let page = self.app.get_json(&path).await;
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        events.reverse();
        events
    }

    /// Writes a last row, and waits until it was captured and all tables were read.
    pub async fn caught_up(&mut self) -> Vec<Value> {
        self.last += 1;
        let last = self.last;
        self.execute(&format!(
            "INSERT INTO product VALUES ({last}, 'last', 0, '')"
        ))
        .await;
        let newest = "/v1/events?eventType=change.public.product&limit=1000";
        eventually(CAUGHT_UP, "the last row is captured", async || {
            let response = self.app.get(newest).await;
            let page: Value = response.json().await.unwrap();
            let is_last = |record: &Value| record["eventData"]["key"]["id"] == last;
            page["events"].as_array()?.iter().any(is_last).then_some(())
        })
        .await;
        self.all_read().await;
        self.records().await
    }
}

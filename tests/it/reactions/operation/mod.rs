//! Reactions of a running server as operators see and change them, in both modes without a broker.

mod command_line;
mod commands;
mod listing;
mod reprocessing;

use crate::harness::{App, AppBuilder, Postgres, connect, eventually, temp_dir};
use actix_web::dev::ServerHandle;
use actix_web::{HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(60);

/// What a [`Hook`] does with the requests of a reaction.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    Fails,
    /// Until it is in another mood.
    Hangs,
}

/// A webhook's receiver.
struct Hook {
    port: u16,
    mood: watch::Sender<Mood>,
    calls: Arc<AtomicUsize>,
    server: ServerHandle,
}

impl Hook {
    async fn start() -> Self {
        let mood = watch::Sender::new(Mood::Takes);
        let calls = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (mood.clone(), Arc::clone(&calls));
        let server = HttpServer::new(move || {
            let (mood, calls) = (kept.clone(), Arc::clone(&count));
            actix_web::App::new().default_service(web::to(move |_: String| {
                calls.fetch_add(1, Ordering::SeqCst);
                let mut mood = mood.subscribe();
                async move {
                    let mood = mood.wait_for(|mood| *mood != Mood::Hangs).await;
                    match mood.as_deref() {
                        Ok(Mood::Takes) => HttpResponse::NoContent().finish(),
                        _ => HttpResponse::BadRequest().body("not now"),
                    }
                }
            }))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let port = server.addrs()[0].port();
        let running = server.run();
        let server = running.handle();
        tokio::spawn(running);
        Self {
            port,
            mood,
            calls,
            server,
        }
    }

    fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// A server with a reaction `hook` to `order.*`, of two lanes and one attempt.
struct Bench {
    app: App,
    hook: Hook,
    /// `--set` of the store, for commands.
    store: String,
    folder: Option<TempDir>,
    database: Option<String>,
}

impl Bench {
    async fn embedded(more: &[Value]) -> Self {
        let folder = temp_dir("operation-");
        let store = format!("data_dir={}", folder.path().display());
        let builder = App::builder().embedded(folder.path());
        Self::start(builder, store, Some(folder), None, more).await
    }

    async fn postgres(more: &[Value]) -> Self {
        let database = Postgres::shared().await.database().await;
        let store = format!("store.url={database}");
        let builder = App::builder().postgres(&database);
        Self::start(builder, store, None, Some(database), more).await
    }

    async fn start(
        builder: AppBuilder,
        store: String,
        folder: Option<TempDir>,
        database: Option<String>,
        more: &[Value],
    ) -> Self {
        let hook = Hook::start().await;
        let mut all =
            vec![json!({"name": "hook", "on": ["order.*"], "max_attempts": 1, "lanes": 2})];
        all.extend_from_slice(more);
        for reaction in &mut all {
            reaction["webhook"] = json!({
                "url": format!("http://127.0.0.1:{}/", hook.port),
                "secret": "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
                "allow_private": true,
            });
        }
        let app = builder.set("reactions", all).start().await;
        app.wait_ready().await;
        Self {
            app,
            hook,
            store,
            folder,
            database,
        }
    }

    /// Sends events of a type, and returns their ids.
    async fn send(&self, event_type: &str, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for begin in (0..count).step_by(1_000) {
            let events: Value = (begin..count.min(begin + 1_000))
                .map(|n| json!({"userId": format!("u{}", n % 3), "eventType": event_type, "eventData": {"n": n}}))
                .collect();
            let response = self.app.post("/v1/events", &events).await;
            assert_eq!(response.status(), 202);
            let reply: Value = response.json().await.unwrap();
            let items = reply["items"].as_array().unwrap();
            ids.extend(
                items
                    .iter()
                    .map(|item| item["id"].as_str().unwrap().to_owned()),
            );
        }
        ids
    }

    /// All runs of `hook` that a query gives, page after page.
    async fn runs(&self, query: &str) -> Vec<Value> {
        self.runs_of("hook", query).await
    }

    async fn runs_of(&self, reaction: &str, query: &str) -> Vec<Value> {
        let mut runs = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/reactions/{reaction}/runs?{query}{cursor}");
            let page = self.app.get_json(&path).await;
            runs.extend(page["runs"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return runs,
            }
        }
    }

    /// Waits until so many runs of `hook` have a status.
    async fn have(&self, status: &str, count: usize) -> Vec<Value> {
        eventually(SOON, &format!("{count} runs are {status}"), async || {
            let runs = self.runs(&format!("limit=1000&status={status}")).await;
            (runs.len() == count).then_some(runs)
        })
        .await
    }

    /// Waits until a run is in a state.
    async fn is_in(&self, run: &str, state: &str) -> Value {
        eventually(SOON, &format!("{run} is {state}"), async || {
            let shown = self.app.get_json(&format!("/v1/runs/{run}")).await;
            (shown["state"] == state).then_some(shown)
        })
        .await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.app.post(path, &body).await;
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn reprocess(&self, body: Value) -> Value {
        let (status, reply) = self.post("/v1/reactions/reprocess", body).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    /// Executes SQL beside the server.
    async fn sql(&self, sql: &str) {
        match (&self.database, &self.folder) {
            (Some(url), _) => connect(url).await.batch_execute(sql).await.unwrap(),
            (None, folder) => {
                use diesel::Connection as _;
                use diesel::connection::SimpleConnection as _;
                let path = folder.as_ref().unwrap().path().join("eclusa.db");
                let path = path.display().to_string();
                let mut connection = diesel::SqliteConnection::establish(&path).unwrap();
                connection
                    .batch_execute("PRAGMA busy_timeout = 5000")
                    .unwrap();
                connection.batch_execute(sql).unwrap();
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.hook.server.stop(false));
    }
}

/// The values of a field, which differ.
fn set_of(runs: &[Value], field: &str) -> BTreeSet<String> {
    let of = |run: &Value| run[field].as_str().unwrap().to_owned();
    let set: BTreeSet<String> = runs.iter().map(of).collect();
    assert_eq!(set.len(), runs.len(), "each once");
    set
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap()
}

/// Each case on both stores, with further reactions.
macro_rules! in_both_modes {
    ($($case:ident($($more:tt),*)),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $case() {
                let more = [$(serde_json::json!($more)),*];
                super::$case(&mut super::super::Bench::embedded(&more).await).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                let more = [$(serde_json::json!($more)),*];
                super::$case(&mut super::super::Bench::postgres(&more).await).await;
            })+
        }
    };
}
use in_both_modes;

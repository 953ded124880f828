//! The real binary as a child process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::metrics::Metrics;
use super::output::{Output, read};
use super::process::{Owner, Process};
use super::settings::Settings;
use super::{eventually, temp_dir};

const START: Duration = Duration::from_secs(30);
const FAILPOINT: Duration = Duration::from_secs(5);
const LINES_SHOWN: usize = 60;

/// Variables of the machine that runs the tests and mean something to Eclusa.
const FOREIGN: &[&str] = &[
    "DATABASE_URL",
    "DB_",
    "RABBITMQ_",
    "ECLUSA",
    "PORT",
    "MAX_RETRY_ATTEMPTS",
    "FAILPOINTS",
    "RUST_LOG",
];

/// What to start the binary with.
#[derive(Default)]
pub struct AppBuilder {
    settings: BTreeMap<String, Value>,
    env: Vec<(String, String)>,
    example: Option<&'static str>,
}

impl AppBuilder {
    /// The example with two followers of its own instead of the binary.
    pub fn followers(self) -> Self {
        self.example("count_by_type")
    }

    /// This example instead of the binary.
    pub fn example(mut self, name: &'static str) -> Self {
        self.example = Some(name);
        self
    }

    /// SQLite in `dir`, no broker.
    pub fn embedded(self, dir: &Path) -> Self {
        self.set("data_dir", dir.display().to_string())
    }

    pub fn postgres(self, url: &str) -> Self {
        self.set("store.url", url)
    }

    pub fn rabbitmq(self, url: &str) -> Self {
        self.set("broker.url", url)
    }

    /// One key of the settings file, with a value of the type it has there.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Returns when it listens; whether it is ready is for [`App::wait_ready`].
    pub async fn start(self) -> App {
        let mut app = self.spawn();
        app.wait_listening().await;
        app
    }

    /// For settings it must refuse: its exit status and all it said on both outputs.
    pub async fn refused(self) -> (ExitStatus, String) {
        let mut app = self.spawn();
        let status = app.wait_exit(START).await;
        eventually(START, "its outputs are read to the end", async || {
            (Arc::strong_count(&app.output) == 1).then_some(())
        })
        .await;
        (status, app.logs().join("\n"))
    }

    fn spawn(self) -> App {
        let folder = temp_dir("app-");
        let mut values = self.settings;
        values.entry("http.port".into()).or_insert(0.into());
        // Tests that look at the grace period set one; the others need not sit through it.
        let grace = || "0s".into();
        values.entry("shutdown.grace".into()).or_insert_with(grace);
        let settings = Settings::new(folder.path().join("eclusa.toml"), values);
        let output = Arc::default();
        let program = program(self.example);
        let process = spawn(&program, folder.path(), settings.file(), &self.env, &output);
        App {
            process,
            program,
            output,
            settings,
            env: self.env,
            folder,
            url: String::new(),
            client: Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(60))
                .build()
                .expect("client"),
        }
    }
}

/// The running binary. Killed on drop; when the test panics, its last lines are printed.
pub struct App {
    process: Process,
    program: PathBuf,
    output: Arc<Mutex<Output>>,
    settings: Settings,
    env: Vec<(String, String)>,
    folder: TempDir,
    url: String,
    client: Client,
}

impl App {
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// `http://127.0.0.1:<port>`; another port after `start_again`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its own folder, there until the drop.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub async fn get(&self, path: &str) -> Response {
        let sent = self.client.get(format!("{}{path}", self.url)).send().await;
        sent.unwrap_or_else(|e| panic!("GET {path}: {e:?}"))
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_as(path, "application/json", body.to_string())
            .await
    }

    pub async fn post_as(&self, path: &str, kind: &str, body: impl Into<Body>) -> Response {
        let sent = self.try_post(path, kind, body).await;
        sent.unwrap_or_else(|e| panic!("POST {path}: {e:?}"))
    }

    /// For when it may be killed meanwhile.
    pub async fn try_post(
        &self,
        path: &str,
        kind: &str,
        body: impl Into<Body>,
    ) -> reqwest::Result<Response> {
        let request = self.client.post(format!("{}{path}", self.url));
        request.header(CONTENT_TYPE, kind).body(body).send().await
    }

    /// Ready, and connected to the broker if it has one: it is ready before that, since the store
    /// stands in for the broker.
    pub async fn wait_ready(&self) {
        eventually(START, "ready", async || self.is_ready().await.then_some(())).await;
        if self.settings.has("broker.url") {
            eventually(START, "connected to the broker", async || {
                (self.metric("eclusa_broker_connected").await == 1.0).then_some(())
            })
            .await;
        }
    }

    pub async fn is_ready(&self) -> bool {
        self.get("/health/ready").await.status() == StatusCode::OK
    }

    pub async fn metrics(&self) -> Metrics {
        let text = self.get("/metrics").await.text().await;
        Metrics::parse(&text.expect("/metrics"))
    }

    /// Over all label values; 0 if there is no such series.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, &[]).await
    }

    pub async fn metric_with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.sum(name, labels)
    }

    /// The last lines of both outputs, in the order they were read.
    pub fn logs(&self) -> Vec<String> {
        self.output.lock().unwrap().lines.iter().cloned().collect()
    }

    pub async fn wait_for_log(&self, deadline: Duration, needle: &str) -> String {
        eventually(
            deadline,
            &format!("a log line with {needle:?}"),
            async || self.logs().into_iter().find(|line| line.contains(needle)),
        )
        .await
    }

    /// Rewrites the settings file as a whole, at once; says nothing to the process.
    pub fn rewrite_config(&mut self, key: &str, value: impl Into<Value>) {
        self.settings.set(key, value.into());
    }

    pub fn sighup(&mut self) {
        self.process.signal(Signal::SIGHUP);
    }

    pub fn sigterm(&mut self) {
        self.process.signal(Signal::SIGTERM);
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGSTOP: its sockets stay open and it answers nothing.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    pub fn resume(&mut self) {
        self.process.resume();
    }

    pub fn has_exited(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// Another one after each start.
    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }

    /// Arms or clears a failpoint of the running process.
    pub async fn set_failpoint(&self, point: &str, action: &str) -> reqwest::Result<()> {
        let request = self.client.put(format!("{}/failpoints/{point}", self.url));
        let request = request.timeout(FAILPOINT).body(action.to_owned());
        request.send().await?.error_for_status().map(|_| ())
    }

    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait_exit(deadline).await
    }

    /// After it exited or was killed: same settings, same folder, a new port unless one is set.
    pub async fn start_again(&mut self) {
        self.spawn_again();
        self.wait_listening().await;
    }

    /// As `start_again`, but returns at once: with its database away it listens only later.
    pub fn spawn_again(&mut self) {
        assert!(self.has_exited(), "eclusa runs still");
        self.output.lock().unwrap().url = None;
        self.process = spawn(
            &self.program,
            self.folder.path(),
            self.settings.file(),
            &self.env,
            &self.output,
        );
    }

    pub async fn wait_listening(&mut self) {
        let Self {
            process, output, ..
        } = self;
        self.url = eventually(START, "eclusa says where it listens", async || {
            let url = output.lock().unwrap().url.clone();
            if url.is_none()
                && let Some(status) = process.exited()
            {
                panic!("eclusa did not start ({status})");
            }
            url
        })
        .await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let from = logs.len().saturating_sub(LINES_SHOWN);
            eprintln!("eclusa's last lines:");
            for line in logs.iter().skip(from) {
                eprintln!("  {line}");
            }
        }
    }
}

/// The binary, or an example, which lies beside it.
fn program(example: Option<&str>) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_eclusa"));
    match example {
        None => binary,
        Some(name) => binary.with_file_name("examples").join(name),
    }
}

fn spawn(
    program: &Path,
    folder: &Path,
    settings: &Path,
    env: &[(String, String)],
    output: &Arc<Mutex<Output>>,
) -> Process {
    let mut command = Command::new(program);
    command.arg("--config").arg(settings);
    let own = std::env::vars_os().filter(|(key, _)| {
        let key = key.to_string_lossy();
        !FOREIGN.iter().any(|foreign| key.starts_with(foreign))
    });
    command.envs(own).envs(env.iter().cloned());
    let mut process = Process::spawn("eclusa", folder, &Owner::same(), &command, |command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    });
    let child = process.child();
    read(child.stdout.take().expect("piped"), output, Output::take);
    read(child.stderr.take().expect("piped"), output, Output::keep);
    process
}

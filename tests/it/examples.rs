//! The clients of `examples/clients`, each run against a real server and through a network that
//! loses a response.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    App, Direction, Moment, Postgres, Proxy, RabbitMq, eventually, has_node, npm_packages,
    precondition, program, run, temp_dir, told,
};

const SOON: Duration = Duration::from_secs(60);
/// The system's Python: another one that comes first in PATH does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

fn client(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("examples/clients").join(path)
}

fn has_curl() -> bool {
    precondition("curl", program("curl", &["--version"])).is_some()
}

fn has_python(module: &str) -> bool {
    let import = format!("import {module}");
    let what = format!("{PYTHON} with {module}");
    precondition(&what, program(PYTHON, &["-c", &import])).is_some()
}

async fn succeeds(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = run(command).await;
    assert!(output.status.success(), "{shown}: {}", told(&output));
    told(&output)
}

fn curl(url: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg(client("curl/send.sh"));
    command.arg(client("curl/events.ndjson"));
    command.env("ECLUSA_URL", url).env_remove("ECLUSA_KEY");
    command
}

fn python_http(url: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg(client("python/http_client.py"));
    command.env("ECLUSA_URL", url).env_remove("ECLUSA_KEY");
    command.env("NO_PROXY", "*");
    command
}

async fn events(app: &App, user: &str) -> Vec<Value> {
    let page = app.get_json(&format!("/v1/events?userId={user}")).await;
    page["events"].as_array().unwrap().clone()
}

async fn wait_events(app: &App, user: &str, count: usize) -> Vec<Value> {
    eventually(SOON, &format!("{count} events of {user}"), async || {
        let events = events(app, user).await;
        (events.len() >= count).then_some(events)
    })
    .await
}

fn types(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<_> = events
        .iter()
        .map(|event| event["eventType"].as_str().unwrap())
        .collect();
    types.sort_unstable();
    types
}

async fn embedded() -> (App, Proxy, tempfile::TempDir) {
    let folder = temp_dir("examples-");
    let app = App::builder().embedded(folder.path()).start().await;
    app.wait_ready().await;
    let net = Proxy::to(port_of(app.url())).await;
    (app, net, folder)
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_stores_a_file_once_though_a_response_is_lost() {
    if !has_curl() {
        return;
    }
    let (app, net, _folder) = embedded().await;
    net.cut_when(Direction::Up, b"page.view", Moment::Answered);
    let url = net.url(app.url());
    let answer = succeeds(curl(&url)).await;
    assert_eq!(net.sprung(), 1);
    assert!(answer.contains(r#""accepted":3"#), "{answer}");
    let again: Value = serde_json::from_str(&succeeds(curl(&url)).await).unwrap();
    for item in again["items"].as_array().unwrap() {
        assert_eq!(item["status"], "duplicate", "{again}");
    }
    let stored = events(&app, "ana").await;
    assert_eq!(types(&stored), ["cart.add", "order.placed", "page.view"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_shows_what_is_wrong_with_a_file_and_does_not_repeat_it() {
    if !has_curl() {
        return;
    }
    let (app, _net, folder) = embedded().await;
    let file = folder.path().join("bad.ndjson");
    fs::write(&file, r#"{"userId":"ana","eventTyp":"x"}"#).unwrap();
    let mut command = Command::new("sh");
    command.arg(client("curl/send.sh")).arg(&file);
    command
        .env("ECLUSA_URL", app.url())
        .env_remove("ECLUSA_KEY");
    let output = run(command).await;
    assert!(!output.status.success());
    assert!(
        told(&output).contains("did you mean eventType"),
        "{}",
        told(&output)
    );
    let refused = app.metric("eclusa_events_refused_total").await;
    assert_eq!(refused, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_http_stores_once_though_a_response_is_lost() {
    if !has_python("json") {
        return;
    }
    let (app, net, _folder) = embedded().await;
    net.cut_when(Direction::Up, b"page.view", Moment::Answered);
    let said = succeeds(python_http(&net.url(app.url()))).await;
    assert_eq!(net.sprung(), 1);
    // The first attempt was stored, and its response lost.
    assert_eq!(said.matches("duplicate ").count(), 2, "{said}");
    assert_eq!(types(&events(&app, "ana").await), ["cart.add", "page.view"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_wait_as_long_as_a_503_says() {
    if !has_curl() || !has_python("json") {
        return;
    }
    let mut postgres = Postgres::start().await;
    let database = postgres.database().await;
    let app = App::builder().postgres(&database).start().await;
    app.wait_ready().await;
    let refused = async || {
        let reason = [("reason", "unavailable")];
        app.metric_with("eclusa_events_refused_total", &reason)
            .await
    };
    let mut said = Vec::new();
    // One after the other, so that each has been refused before the store is back.
    for command in [curl(app.url()), python_http(app.url())] {
        postgres.kill9();
        let before = refused().await;
        let client = tokio::spawn(async move { succeeds(command).await });
        eventually(SOON, "the client is refused", async || {
            (refused().await > before).then_some(())
        })
        .await;
        postgres.start_again().await;
        said.push(client.await.unwrap());
    }
    // Its own delays begin with 0.2 s; a Retry-After is at least one second.
    let paused = said[1].lines().find(|line| line.contains("503")).unwrap();
    let seconds = paused.split(' ').nth(2).unwrap();
    assert!(seconds.parse::<f64>().unwrap() >= 1.0, "{paused}");
    assert_eq!(events(&app, "ana").await.len(), 5);
}

struct Full {
    app: App,
    /// Between the client and RabbitMQ.
    net: Proxy,
    vhost: String,
}

async fn full() -> Full {
    let rabbitmq = RabbitMq::shared().await;
    let vhost = rabbitmq.vhost().await;
    let app = App::builder()
        .postgres(&Postgres::shared().await.database().await)
        .rabbitmq(&vhost)
        .set("batch.max_wait", "200ms")
        .start()
        .await;
    app.wait_ready().await;
    let net = Proxy::to(rabbitmq.port()).await;
    let vhost = net.url(&vhost);
    Full { app, net, vhost }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_over_amqp_stores_once_though_a_confirm_is_lost() {
    if !has_python("pika") {
        return;
    }
    let Full { app, net, vhost } = full().await;
    net.cut_when(Direction::Up, b"page.view", Moment::Answered);
    let mut command = Command::new(PYTHON);
    command.arg(client("python/amqp_client.py"));
    command
        .env("RABBITMQ_URL", vhost)
        .env_remove("RABBITMQ_QUEUE");
    let said = succeeds(command).await;
    assert_eq!(net.sprung(), 1, "{said}");
    assert_eq!(said.matches("confirmed ").count(), 2, "{said}");
    let stored = wait_events(&app, "ana", 2).await;
    assert_eq!(types(&stored), ["cart.add", "page.view"]);
    eventually(SOON, "the repeated message is a duplicate", async || {
        (app.metric("eclusa_events_duplicate_total").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(events(&app, "ana").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nestjs_stores_once_though_a_confirm_is_lost() {
    if !has_node() {
        return;
    }
    let Some(publisher) = nestjs().await else {
        return;
    };
    let Full { app, net, vhost } = full().await;
    net.cut_when(Direction::Up, b"user.created", Moment::Answered);
    let start = || {
        let mut command = Command::new("node");
        command.arg(publisher.join("dist/main.js"));
        command.env("RABBITMQ_URL", &vhost);
        command.env_remove("RABBITMQ_QUEUE");
        succeeds(command)
    };
    let said = start().await;
    assert_eq!(net.sprung(), 1, "{said}");
    assert_eq!(said.matches("confirmed ").count(), 2, "{said}");
    let stored = wait_events(&app, "ana", 2).await;
    assert_eq!(types(&stored), ["order.placed", "user.created"]);
    // The second run brings another user.created and the same order.
    start().await;
    let stored = wait_events(&app, "ana", 3).await;
    let expected = ["order.placed", "user.created", "user.created"];
    assert_eq!(types(&stored), expected);
    assert!(app.metric("eclusa_events_duplicate_total").await >= 1.0);
}

/// The publisher, installed and built below the target folder; installed anew only when its
/// lockfile has changed.
async fn nestjs() -> Option<PathBuf> {
    let source = client("nestjs");
    let folder = npm_packages(&source, "nestjs-publisher").await?;
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::copy(source.join("tsconfig.json"), folder.join("tsconfig.json")).unwrap();
    for file in fs::read_dir(source.join("src")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join("src").join(file.file_name())).unwrap();
    }
    let mut build = Command::new("npm");
    build.args(["run", "build"]).current_dir(&folder);
    succeeds(build).await;
    Some(folder)
}

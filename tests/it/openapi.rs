//! The OpenAPI document against the running server: schemathesis sends what the document allows and
//! what it forbids, and checks every response.

use crate::harness::{App, temp_dir, told};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Bounds the time: about half a minute for all operations on an idle machine.
const EXAMPLES: &str = "15";
/// Far more than a run takes.
const DEADLINE: Duration = Duration::from_secs(400);

/// The program that scripts/test installs, or `None` where it is missing. When `CI` is set, the test
/// fails then.
fn schemathesis() -> Option<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let program = target
        .parent()
        .unwrap()
        .join("schemathesis/bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    let text = format!("needs {}: run scripts/test", program.display());
    assert!(
        std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        "{text}"
    );
    eprintln!("SKIPPED {text}");
    None
}

async fn run(program: PathBuf, app: &App, arguments: &[&str]) -> Output {
    let folder = temp_dir("schemathesis-");
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let mut command = Command::new(program);
    command
        .env("SCHEMATHESIS_HOOKS", settings.join("hooks.py"))
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", app.url())])
        .args(["--checks", "all", "--max-examples", EXAMPLES])
        // The same requests on every run.
        .args(["--seed", "1", "--generation-deterministic"])
        .args(["--no-color", "--request-timeout", "30"])
        .args(arguments)
        .current_dir(folder.path());
    let output = tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap();
        drop(folder);
        output
    });
    tokio::time::timeout(DEADLINE, output)
        .await
        .unwrap()
        .unwrap()
}

/// The stream that the document's examples name.
fn streams() -> Value {
    json!([{"name": "orders", "on": ["order.*"], "key": "userId", "wait": "0s"}])
}

/// The reaction that the document's examples name.
fn reactions() -> Value {
    json!([{"name": "welcome-mail", "on": ["*"], "log": {}}])
}

#[tokio::test]
async fn the_server_does_what_its_document_says() {
    let Some(program) = schemathesis() else {
        return;
    };
    let dir = temp_dir("openapi-");
    let app = App::builder()
        .embedded(dir.path())
        .set("reactions", reactions())
        // Many calls ask for messages, and there are none.
        .set("pix.wait", "0s")
        .set("streams", streams())
        .start()
        .await;
    app.wait_ready().await;
    let output = run(program, &app, &[]).await;
    assert!(output.status.success(), "{}", told(&output));
}

#[tokio::test]
async fn the_server_does_what_its_document_says_with_keys() {
    let Some(program) = schemathesis() else {
        return;
    };
    let dir = temp_dir("openapi-");
    let hash = format!("sha256:{:x}", Sha256::digest("secret"));
    let app = App::builder()
        .embedded(dir.path())
        .set("auth.public_metrics", false)
        .set(
            "auth.keys",
            json!([{"name": "root", "hash": hash, "scopes": ["admin"]}]),
        )
        .set("reactions", reactions())
        // Many calls ask for messages, and there are none.
        .set("pix.wait", "0s")
        .set("streams", streams())
        .start()
        .await;
    app.wait_ready().await;
    let output = run(program, &app, &["--header", "Authorization: Bearer secret"]).await;
    assert!(output.status.success(), "{}", told(&output));
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let dir = temp_dir("openapi-");
    let app = App::builder().embedded(dir.path()).start().await;
    let response = app.get("/docs").await;
    assert_eq!(response.status(), 200);
    let policy = response.headers()["content-security-policy"].clone();
    let policy = policy.to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    let page = response.text().await.unwrap();
    assert!(page.contains("openapi.json"));
    for part in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
    let document = app.get_json("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
}

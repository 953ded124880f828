//! A real SMTP server: aiosmtpd, which prints what it takes.

use crate::harness::{eventually, free_port, precondition, program};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The system's Python: another one that comes first in PATH does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";
const SOON: Duration = Duration::from_secs(30);

/// Whether the server can be started; says so if not.
pub fn has_aiosmtpd() -> bool {
    let found = program(PYTHON, &["-c", "import aiosmtpd"]);
    precondition("python3-aiosmtpd", found).is_some()
}

/// The server, and what it has taken so far.
pub struct SmtpServer {
    pub port: u16,
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl SmtpServer {
    pub async fn start(options: Value) -> Self {
        Self::start_on(free_port(), options).await
    }

    pub async fn start_on(port: u16, mut options: Value) -> Self {
        options["port"] = json!(port);
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/reactions/smtp_server.py");
        let mut child = Command::new(PYTHON)
            .arg(script)
            .arg(options.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, kept) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.lock()
                    .push(serde_json::from_str::<Value>(&line).unwrap());
            }
        });
        let server = Self { port, child, lines };
        eventually(SOON, "the SMTP server listens", async || {
            (!server.lines.lock().is_empty()).then_some(())
        })
        .await;
        server
    }

    /// The messages taken. A message is printed before it is answered, so a sender that knows that its
    /// message is taken waits a moment at most.
    pub async fn messages(&self, count: usize) -> Vec<Value> {
        eventually(SOON, "the messages are there", async || {
            let lines = self.lines.lock();
            (lines.len() > count).then(|| lines[1..].to_vec())
        })
        .await
    }

    /// How many messages were taken and printed.
    pub fn count(&self) -> usize {
        self.lines.lock().len() - 1
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only value of a header.
pub fn header<'a>(message: &'a Value, name: &str) -> &'a str {
    let headers = message["headers"].as_array().unwrap();
    let mut values = headers.iter().filter(|header| header[0] == name);
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {name}: {message}"));
    assert!(values.next().is_none(), "{name} twice: {message}");
    value[1].as_str().unwrap()
}

/// A certificate for 127.0.0.1, signed by itself, and its key.
pub fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let output = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext"])
        .args(["subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext"])
        .args(["basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    (certificate, key)
}

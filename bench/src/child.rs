//! Processes under test: this very program, started again, so that what they use can be told from
//! what the load generator uses.

use super::http::Target;
use super::process;
use super::process::Usage;
use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long one may take to listen and to be ready.
const START: Duration = Duration::from_secs(60);
/// Variables of this process that a child gets; no settings are among them.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
];

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: Process,
    pub target: Target,
    log: PathBuf,
    began: Instant,
}

impl Child {
    /// Starts this program with these arguments and waits until it says where it listens. What it
    /// says on standard error goes to a file in `folder`.
    ///
    /// # Errors
    /// When it cannot be started or ends; with the last lines it wrote.
    pub async fn start(arguments: &[String], folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let log = folder.join("child.log");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let began = Instant::now();
        let mut process = command
            .spawn()
            .context("cannot start the server under test")?;
        let (sender, listening) = oneshot::channel();
        if let Some(output) = process.stdout.take() {
            // To its end, or the child would block one day.
            std::thread::spawn(move || watch(BufReader::new(output), sender));
        }
        let mut child = Self {
            process,
            target: Target::local(SocketAddr::from(([127, 0, 0, 1], 0))),
            log,
            began,
        };
        match tokio::time::timeout(START, listening).await {
            Ok(Ok(address)) => child.target = Target::local(address),
            _ => bail!(
                "the server under test did not start:\n{}",
                child.last_lines()
            ),
        }
        Ok(child)
    }

    /// Waits until `/health/ready` says yes, and says how long it took from the start.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn ready(&self) -> anyhow::Result<Duration> {
        self.until("ready", async || {
            matches!(self.target.get("/health/ready").await, Ok((200, _)))
        })
        .await
    }

    /// Waits until it is connected to the broker.
    ///
    /// # Errors
    /// As [`Child::ready`].
    pub async fn connected(&self) -> anyhow::Result<Duration> {
        self.until("connected to the broker", async || {
            self.metric("eclusa_broker_connected").await.unwrap_or(0.0) > 0.0
        })
        .await
    }

    async fn until(
        &self,
        what: &str,
        condition: impl AsyncFn() -> bool,
    ) -> anyhow::Result<Duration> {
        loop {
            if condition().await {
                return Ok(self.began.elapsed());
            }
            if self.began.elapsed() > START {
                bail!(
                    "the server under test is not {what}:\n{}",
                    self.last_lines()
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The sum of all series of a metric.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (_, text) = self.target.get("/metrics").await?;
        Ok(sum(&text, name))
    }

    /// Several metrics as of one moment.
    ///
    /// # Errors
    /// As [`Child::metric`].
    pub async fn metrics<const N: usize>(&self, names: [&str; N]) -> anyhow::Result<[f64; N]> {
        let (_, text) = self.target.get("/metrics").await?;
        Ok(names.map(|name| sum(&text, name)))
    }

    /// What it has used so far.
    pub fn usage(&self) -> Option<Usage> {
        process::usage(self.process.id())
    }

    /// The end of what it wrote on standard error.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn watch(mut output: impl BufRead, sender: oneshot::Sender<SocketAddr>) {
    let mut sender = Some(sender);
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(address) = line.trim().strip_prefix("Listening on http://")
            && let Ok(address) = address.parse()
            && let Some(sender) = sender.take()
        {
            let _ = sender.send(address);
        }
        line.clear();
    }
}

/// The sum of all samples of exactly this name in a text of the Prometheus format.
fn sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_are_summed() {
        let text = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"2\"} 4\na_total_more 9\nb 2\n";
        assert_eq!(sum(text, "a_total"), 7.0);
        assert_eq!(sum(text, "b"), 2.0);
        assert_eq!(sum(text, "c"), 0.0);
    }
}

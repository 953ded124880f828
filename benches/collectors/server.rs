//! The program under test, as a process of its own.

use eclusa_bench::http::Target;
use eclusa_bench::process::{Usage, usage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what it holds.
const LOOK: Duration = Duration::from_millis(200);
/// Lines of its log that are shown when something is wrong.
const SHOWN: usize = 20;
/// Variables of this process that it gets; no settings are among them.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"];

/// A running server; killed when dropped, and then its last lines are shown if the measurement has failed.
pub struct Server {
    process: Child,
    pub target: Target,
    log: PathBuf,
}

impl Server {
    /// Starts it with a settings file, and waits until it is ready. Its log goes to a file beside the settings.
    pub async fn start(settings: &Path) -> Self {
        let log = settings.with_extension("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_eclusa"));
        command
            .arg("--config")
            .arg(settings)
            .arg("serve")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .kill_on_drop(true);
        for name in INHERITED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let mut process = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut server = Self {
            process,
            target: Target::local(([127, 0, 0, 1], 0).into()),
            log,
        };
        let listening = async {
            while let Some(line) = lines.next_line().await.expect("its output") {
                if let Some(address) = line.strip_prefix("Listening on http://") {
                    return address.parse().expect("an address");
                }
            }
            panic!("the server has ended");
        };
        let address = timeout(PATIENCE, listening).await;
        server.target = Target::local(address.expect("it listens"));
        // To its end, or the server would block one day.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ready = async {
            while !matches!(server.target.get("/health/ready").await, Ok((200, _))) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("it is ready");
        server
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        usage(self.process.id().expect("it runs")).expect("what it has used")
    }

    /// How much the stream of Pix messages holds of something, such as `waiting`; `None` while the server has too much to
    /// do to say so.
    async fn level(&self, what: &str) -> Option<u64> {
        let (200, text) = self.target.get("/v1/streams").await.ok()? else {
            return None;
        };
        let found: Value = serde_json::from_str(&text).unwrap();
        let streams = found["streams"].as_array().expect("streams");
        let pix = streams.iter().find(|stream| stream["name"] == "pix");
        pix.expect("the stream")[what].as_u64()
    }

    /// Waits until the stream of Pix messages holds so many of something.
    pub async fn until_level(&self, what: &str, number: usize) {
        let (mut last, mut moved) = (None, Instant::now());
        while last < Some(number as u64) {
            assert!(moved.elapsed() < PATIENCE, "{what} stays at {last:?}");
            sleep(LOOK).await;
            let now = self.level(what).await;
            if now > last {
                (last, moved) = (now, Instant::now());
            }
        }
    }

    /// Messages that were acknowledged to this process.
    pub async fn acknowledged(&self) -> usize {
        const NAME: &str = "eclusa_stream_acknowledged_total{stream=\"pix\"} ";
        let (_, text) = self.target.get("/metrics").await.expect("metrics");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(NAME));
        values.next().map_or(0, |value| value.parse().unwrap())
    }

    /// Ends it by SIGTERM, so that its leases are free at once.
    pub async fn stop(mut self) {
        let id = self.process.id().expect("it runs");
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).expect("its own child");
        let ended = timeout(PATIENCE, self.process.wait()).await;
        ended.expect("it ends").expect("its own child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("the server's last lines:\n{}", last.join("\n"));
        }
    }
}

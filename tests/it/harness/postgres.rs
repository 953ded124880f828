//! A private PostgreSQL server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use super::process::{Owner, Process};
use super::{eventually, free_port, temp_dir};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// One cluster in a folder of its own, on a port of its own, with real fsync: the tests are about
/// what survives.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    owner: Owner,
    server: Option<Process>,
}

impl Postgres {
    /// The server all tests share that leave it alone.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of the caller's own, to be stopped, killed and paused.
    pub async fn start() -> Self {
        Self::start_in(temp_dir("postgres-")).await
    }

    /// The same in a given folder, such as one on a small disk.
    pub async fn start_in(folder: TempDir) -> Self {
        let owner = Owner::named("postgres");
        owner.take(folder.path());
        initdb(folder.path(), &owner).await;
        let mut postgres = Self {
            folder,
            port: free_port(),
            owner,
            server: None,
        };
        postgres.start_again().await;
        postgres
    }

    /// After `stop` or `kill9`: same data, same port. Returns when it takes connections.
    pub async fn start_again(&mut self) {
        self.start_again_with(&[]).await;
    }

    /// The same with settings that win over the usual ones.
    pub async fn start_again_with(&mut self, settings: &[&str]) {
        assert!(self.server.is_none(), "PostgreSQL runs already");
        let mut command = Command::new(postgres_program("postgres"));
        command.arg("-D").arg(self.data());
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "max_connections=200".into(),
            "shared_buffers=32MB".into(),
            "fsync=on".into(),
            "wal_level=logical".into(),
            "max_replication_slots=100".into(),
            "max_wal_senders=100".into(),
            // Slots that a test leaves behind would keep all that the others write.
            "max_slot_wal_keep_size=4GB".into(),
            "log_checkpoints=off".into(),
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        let log = File::create(self.log()).expect("log file");
        let server = Process::spawn(
            "postgres",
            self.folder.path(),
            &self.owner,
            &command,
            |command| {
                command
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("log file"))
                    .stderr(log);
            },
        );
        let server = self.server.insert(server);
        let url = url(self.port, "postgres");
        let log = self.folder.path().join("log");
        eventually(START, "PostgreSQL takes connections", async || {
            if let Some(status) = server.exited() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("PostgreSQL did not start ({status}):\n{log}");
            }
            try_connect(&url).await.ok()
        })
        .await;
    }

    /// A fresh, empty database. A test has its own, so tests run side by side.
    pub async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.execute(&self.url("postgres"), &format!("CREATE DATABASE {name}"))
            .await;
        self.url(&name)
    }

    /// For a database by name; `postgres` is always there.
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All rows of one statement with parameters, over a connection of its own.
    pub async fn query(&self, url: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let rows = connect(url).await.query(sql, params).await;
        rows.unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    /// One statement, or several separated by `;`, over a connection of its own.
    pub async fn execute(&self, url: &str, sql: &str) {
        let done = connect(url).await.batch_execute(sql).await;
        done.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// As the power cut: every process of the cluster at once, nothing flushed.
    pub fn kill9(&mut self) {
        self.server = None;
    }

    /// Whether it has ended by itself, of a full disk for example. Then it can be started again.
    pub fn has_failed(&mut self) -> bool {
        let failed = |server: &mut Process| server.exited().is_some();
        self.server.take_if(failed).is_some()
    }

    /// Fast shutdown: clients are disconnected, the data is flushed.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::SIGINT);
            server.wait_exit(STOP).await;
        }
    }

    /// Connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.server.as_mut().expect("PostgreSQL runs").pause();
    }

    pub fn resume(&mut self) {
        self.server.as_mut().expect("PostgreSQL runs").resume();
    }

    /// Its data, to be copied while it is stopped.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// A connection that drives itself until the client is dropped.
pub async fn connect(url: &str) -> Client {
    let client = try_connect(url).await;
    client.unwrap_or_else(|e| panic!("{url}: {e:?}"))
}

async fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

async fn initdb(folder: &Path, owner: &Owner) {
    let mut command = Command::new(postgres_program("initdb"));
    command
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8"])
        // An empty cluster needs no fsync; the server itself has it on.
        .args(["--locale=C.UTF-8", "--no-sync", "-D"])
        .arg(folder.join("data"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(folder);
    owner.run_as(&mut command);
    let done = tokio::task::spawn_blocking(move || command.output());
    let output = done.await.unwrap().expect("initdb starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "initdb: {told}");
}

/// Debian keeps the server's programs outside of PATH, in a folder per version: the newest wins.
pub fn postgres_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path())
        .collect();
    versions.sort();
    std::env::split_paths(&path)
        .chain(versions.iter().rev().map(|version| version.join("bin")))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("no `{name}`; scripts/test installs what is missing"))
}

//! What the bench needs of the program that links it. Everything else it learns from outside: over
//! HTTP, from the store and the broker, from `/proc`.

use futures::future::BoxFuture;
use std::path::PathBuf;
use tokio_postgres::Client;

/// A PostgreSQL client, and the future that drives its connection.
pub type Connected = (Client, BoxFuture<'static, ()>);

/// The servers to measure with, empty where there is none.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    pub store: String,
    pub broker: String,
}

/// What the program does with a settings file and flags over it.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// HTTP workers; 0 for one per core.
    pub workers: usize,
    /// The SQLite file of the embedded mode.
    pub sqlite_file: PathBuf,
    /// Every queue that it may declare.
    pub queues: Vec<String>,
    /// Every exchange that it may declare.
    pub exchanges: Vec<String>,
}

/// Reads a settings file's text and flags over it as the program does.
pub type Expect = fn(&str, &[(String, String)]) -> anyhow::Result<Expected>;

/// The program under test, which is the one that runs the bench.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    pub version: &'static str,
    /// The text of its profile for throughput.
    pub throughput: &'static str,
    /// What it makes of settings; an error if it refuses them.
    pub expect: Expect,
    /// Connects to a PostgreSQL with the TLS that the URL asks for.
    pub connect: fn(String) -> BoxFuture<'static, anyhow::Result<Connected>>,
    /// The version of a RabbitMQ, such as `3.10`, if it says one.
    pub broker_version: fn(String) -> BoxFuture<'static, Option<String>>,
}

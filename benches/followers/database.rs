//! A database of the run's own, and the log in it.

use eclusa::event::{Event, Rows, Source};
use eclusa::followers::{FollowerOptions, Followers, RunningFollowers};
use eclusa::metrics::Metrics;
use eclusa::store::postgres::{PostgresOptions, PostgresStore, migrate};
use eclusa::store::{EventStore, Store};
use eclusa::supervision::{Phase, Starter};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// Dropped at the end of a run.
pub struct Database {
    pub url: String,
    server: String,
    name: String,
}

/// A connection that is driven by a task of its own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

impl Database {
    pub async fn create(server: &str) -> Self {
        let name = format!("eclusa_bench_{:08x}", rand::random::<u32>());
        let create = format!("CREATE DATABASE {name}");
        connect(server)
            .await
            .batch_execute(&create)
            .await
            .expect("a database");
        let (base, _) = server.rsplit_once('/').expect("a URL with a database");
        let url = format!("{base}/{name}");
        migrate(&PostgresOptions::new(&url))
            .await
            .expect("migrates");
        Self {
            url,
            server: server.to_owned(),
            name,
        }
    }

    pub async fn store(&self) -> Arc<PostgresStore> {
        let options = PostgresOptions::new(&self.url);
        Arc::new(PostgresStore::connect(&options).await.expect("a store"))
    }

    pub async fn drop(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let server = connect(&self.server).await;
        server.batch_execute(&drop).await.expect("drops it");
    }
}

/// Followers that run in this process.
pub struct Running {
    pub followers: RunningFollowers,
    starter: Starter,
}

impl Running {
    pub async fn start(store: Arc<dyn Store>, followers: Followers) -> Self {
        Self::start_with(store, followers, FollowerOptions::default()).await
    }

    pub async fn start_with(
        store: Arc<dyn Store>,
        followers: Followers,
        options: FollowerOptions,
    ) -> Self {
        let starter = Starter::new(Arc::new(Metrics::new().unwrap()));
        let followers = followers.start(store, options, &starter).await;
        Self {
            followers: followers.expect("followers"),
            starter,
        }
    }

    pub async fn stop(self) {
        self.starter.lifecycle.advance(Phase::Draining);
        self.starter.lifecycle.released().await;
    }
}

/// An event like those of the bench: some 200 bytes.
pub fn event(n: usize, event_type: &str) -> Event {
    let data = format!(
        "{{\"n\":{n},\"path\":\"/catalogue/lamps\",\"amount\":129.90,\"currency\":\"EUR\",\"note\":\"{}\"}}",
        "x".repeat(80)
    );
    Event {
        event_id: Uuid::now_v7(),
        original_id: None,
        producer: Arc::from("bench"),
        user_id: Some(format!("user-{:04}", n % 10_000)),
        event_type: event_type.to_owned(),
        event_data: RawValue::from_string(data).unwrap(),
        schema_version: None,
        session_id: Some(format!("session-{:06}", n % 100_000)),
        timestamp: None,
        received_at: chrono::Utc::now(),
        source: Source::Http,
    }
}

pub async fn write(store: &dyn EventStore, events: Vec<Event>) {
    store
        .write(Rows::all(Arc::new(events)))
        .await
        .expect("writes");
}

/// Ticks of processor time of all processes of the server that a connection belongs to, ended ones included, and of
/// this process; 100 to a second on Linux. Work in other databases of the server counts too.
pub async fn processor_ticks(client: &Client) -> (u64, u64) {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    let backend: i32 = row.expect("a backend").get(0);
    let parent = |stat: &[u64]| stat.get(1).copied().unwrap_or(0);
    let with_ended = |stat: &[u64]| stat.iter().skip(11).take(4).sum::<u64>();
    let postmaster = parent(&stat_of(&backend.to_string()));
    let names = std::fs::read_dir("/proc").expect("processes");
    let processes = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let children = processes
        .map(|process| stat_of(&process))
        .filter(|stat| parent(stat) == postmaster)
        .map(|stat| with_ended(&stat));
    let server = children.sum::<u64>() + with_ended(&stat_of(&postmaster.to_string()));
    (server, ticks_of("self"))
}

/// Ticks of processor time of a process.
pub fn ticks_of(process: &str) -> u64 {
    stat_of(process).iter().skip(11).take(2).sum()
}

/// The numbers behind the name in `/proc/PID/stat`: first the state, which is none, then the parent, and from the
/// twelfth on the ticks in user and system mode, those of ended children last.
fn stat_of(process: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after = text.rsplit(") ").next().unwrap_or_default();
    after
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect()
}

/// The value below which this part of the sorted times lies.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

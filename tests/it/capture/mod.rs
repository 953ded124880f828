//! Capture from a real PostgreSQL: the stream, the catalog, the values and the records.

mod alarm;
mod altered;
mod catalog;
mod changes;
mod columns;
mod commands;
mod connections;
mod envelope;
mod failpoints;
mod foreign_slot;
mod in_doubt;
mod killed;
mod listed;
mod moved_keys;
mod refused;
mod replay;
mod replicas;
mod round_trip;
mod servers;
mod shop;
mod slots;
mod stock;
mod stopping;
mod stream;
mod trouble;
mod unwritten;
mod values;
mod writers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eclusa::capture::catalog::slot;
use eclusa::capture::catalog::{CapturedTable, TableName, look_at, publication};
use eclusa::capture::message::{ReplicatedTransaction, ReplicationMessage};
use eclusa::capture::record::{RecordEnvelope, Recorded};
use eclusa::capture::{
    CaptureDatabase, ColumnRules, Recorder, Refused, ReplicationStream, TableShape, Timelines,
};
use eclusa::event::Event;
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::harness::Postgres;

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);

/// One database with a publication and a slot of its own.
pub struct Bench {
    pub url: String,
    pub database: CaptureDatabase,
    pub client: Client,
    pub slot: String,
    pub tables: Vec<CapturedTable>,
}

impl Bench {
    /// On the shared server: makes what `schema` says and captures `tables`.
    pub async fn start(schema: &str, tables: &[&str]) -> Self {
        Self::start_on(Postgres::shared().await, schema, tables).await
    }

    pub async fn start_on(postgres: &Postgres, schema: &str, tables: &[&str]) -> Self {
        let url = postgres.database().await;
        postgres.execute(&url, schema).await;
        let database = database(&url);
        let client = database.connect().await.unwrap();
        let slot = format!("of_{}", database.name().unwrap());
        let mut bench = Self {
            url,
            database,
            client,
            slot,
            tables: Vec::new(),
        };
        for table in tables {
            bench.tables.push(bench.table(table).await);
        }
        if !tables.is_empty() {
            let made = publication::ensure(&bench.client, "captured", &bench.tables).await;
            made.unwrap();
        }
        slot::create(&bench.client, &bench.slot).await.unwrap();
        bench
    }

    pub async fn table(&self, name: &str) -> CapturedTable {
        let name: TableName = name.parse().unwrap();
        look_at(&self.client, &name).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub async fn open(&self) -> ReplicationStream {
        let opened = self.database.open(&self.slot, "captured", None).await;
        opened.unwrap()
    }

    /// A stream with a writer of its records.
    pub async fn capture(&self, envelope: RecordEnvelope) -> Capture {
        Capture {
            stream: self.open().await,
            recorder: recorder(envelope),
            tables: self.tables.clone(),
            rules: HashMap::new(),
            shapes: HashMap::new(),
            transaction: None,
        }
    }
}

impl Drop for Bench {
    /// A slot that is left keeps the log of the shared server.
    fn drop(&mut self) {
        let (database, slot) = (self.database.clone(), self.slot.clone());
        let dropping = async move {
            for _ in 0..100 {
                let Ok(client) = database.connect().await else {
                    return;
                };
                if slot::drop_slot(&client, &slot).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // The test's own runtime is at its end.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let done = std::thread::spawn(move || runtime.block_on(dropping)).join();
        drop(done);
    }
}

pub fn database(url: &str) -> CaptureDatabase {
    CaptureDatabase::new(url, Duration::from_secs(5)).unwrap()
}

pub fn recorder(envelope: RecordEnvelope) -> Recorder {
    Recorder {
        capture: "shop".into(),
        system: 7,
        timelines: Timelines::only(1),
        database: "shop".to_owned(),
        envelope,
        max_bytes: None,
        max_depth: 64,
    }
}

/// A stream whose messages become events, as the actor does it.
pub struct Capture {
    pub stream: ReplicationStream,
    pub recorder: Recorder,
    pub tables: Vec<CapturedTable>,
    pub rules: HashMap<String, ColumnRules>,
    shapes: HashMap<u32, Arc<TableShape>>,
    transaction: Option<ReplicatedTransaction>,
}

impl Capture {
    /// The events of the next message that has some.
    pub async fn next(&mut self) -> Recorded {
        loop {
            let next = timeout(SOON, self.stream.next()).await;
            let message = next.expect("a message in time").unwrap();
            let transaction = self.transaction;
            match message {
                ReplicationMessage::Begin(begun) => self.transaction = Some(begun),
                ReplicationMessage::Relation(relation) => {
                    let known = self.tables.iter().find(|table| table.oid == relation.oid);
                    // A partition.
                    let Some(table) = known else { continue };
                    let rules = self.rules.get(&relation.name).cloned();
                    let rules = rules.unwrap_or_default();
                    let shape = TableShape::of_relation(&relation, table, &rules).unwrap();
                    self.shapes.insert(relation.oid, Arc::new(shape));
                }
                ReplicationMessage::Change(change) => {
                    let shape = &self.shapes[&change.relation.oid];
                    return self.recorder.change(shape, &transaction.unwrap(), &change);
                }
                ReplicationMessage::Truncate { lsn, relations } => {
                    let record = |oid| {
                        let shape = &self.shapes[&oid];
                        self.recorder.truncate(shape, &transaction.unwrap(), lsn)
                    };
                    return relations.iter().map(|table| record(table.oid)).collect();
                }
                ReplicationMessage::Commit { end_lsn, .. } => self.stream.confirm(end_lsn),
                ReplicationMessage::Logical { .. } | ReplicationMessage::Keepalive { .. } => {}
            }
        }
    }

    /// The events of the next changes.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let recorded = self.next().await;
            events.extend(recorded.into_iter().map(|event| event.unwrap()));
        }
        assert_eq!(events.len(), count);
        events
    }

    /// The records of the next changes, without what differs from run to run.
    pub async fn records(&mut self, count: usize) -> Vec<Value> {
        let events = self.events(count).await;
        events.iter().map(record).collect()
    }

    /// What the next change is refused for.
    pub async fn refused(&mut self) -> Refused {
        let recorded = self.next().await;
        recorded.into_iter().next().unwrap().unwrap_err()
    }
}

/// The record of an event, without place and time.
pub fn record(event: &Event) -> Value {
    let mut record: Value = serde_json::from_str(event.event_data.get()).unwrap();
    let members = record.as_object_mut().unwrap();
    for varying in ["lsn", "ts_ms"] {
        assert!(members.remove(varying).is_some(), "{varying}");
    }
    record
}

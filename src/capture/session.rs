//! A session: the stream of a slot, handed to a writer that keeps its order.

use super::agreement::are_altered;
use super::chunk::Chunk;
use super::hand_over::HandOver;
use super::in_hand::Mark;
use super::message::{ColumnText, OldTuple, ReplicatedTransaction, RowChange, RowChangeKind};
use super::params::CaptureParams;
use super::preparation::Prepared;
use super::record::{Recorded, Recorder};
use super::state::{CaptureState, StoredState, TableSnapshot};
use super::visible::in_doubt;
use super::{CaptureError, Lsn, Relation, ReplicationMessage, ReplicationStream, TableShape};
use crate::store::leases::Lease;
use crate::supervision::{Phase, failpoint};
use futures::FutureExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the position is stored, and commands are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of log without changes of captured tables after which the position is stored at once, but not sooner than this
/// after the last time.
const IDLE_BYTES: u64 = 256 << 10;
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// How often tables and publication are looked at.
const LOOK_AT_TABLES: Duration = Duration::from_secs(5);
/// How often the position is stored while next to nothing is written: storing it may write the same log.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Another process captures now.
    Lost,
    /// There is a command.
    Commanded,
    /// Tables or the publication are not as they were.
    Altered,
    /// The process stops.
    Draining,
}

/// A session's stream and what it knows.
pub(super) struct Session<'a> {
    pub(super) params: &'a CaptureParams,
    pub(super) lease: &'a Lease,
    pub(super) stored: StoredState,
    pub(super) prepared: Prepared,
    pub(super) recorder: Recorder,
    stream: ReplicationStream,
    pub(super) hand_over: HandOver,
    /// The shapes of rows in the stream, by table.
    shapes: HashMap<u32, Arc<TableShape>>,
    transaction: Option<ReplicatedTransaction>,
    pub(super) chunk: Option<Chunk>,
    /// Transactions that the stream had, and that the chunk does not see, or that the next one may not see.
    pub(super) had: HashSet<u32>,
    /// What the snapshots have read, stored or not.
    pub(super) read: BTreeMap<String, TableSnapshot>,
    /// Tables whose snapshots wait, and until when.
    pub(super) waiting: BTreeMap<String, Instant>,
    /// Everything before this place is durable.
    durable: Lsn,
    /// Whether changes are among it that the stored position does not cover.
    has_changes: bool,
    stored_at: Instant,
    /// When tables and publication were looked at.
    looked_at: Instant,
}

impl<'a> Session<'a> {
    /// Opens the slot.
    pub(super) async fn open(
        params: &'a CaptureParams,
        lease: &'a Lease,
        stored: StoredState,
        prepared: Prepared,
    ) -> Result<Self, CaptureError> {
        let (slot, publication) = (&stored.state.slot, &stored.state.publication);
        let start = Some(prepared.start);
        let stream = params.database.open(slot, publication, start).await?;
        let recorder = params.recorder(&prepared.identity)?;
        let had = in_doubt(&prepared.client).await?;
        tracing::info!(capture = params.name(), start = %prepared.start, "capturing");
        Ok(Self {
            hand_over: HandOver::new(params, lease),
            shapes: HashMap::new(),
            transaction: None,
            chunk: None,
            had,
            read: stored.state.tables.clone(),
            waiting: BTreeMap::new(),
            durable: prepared.start,
            has_changes: false,
            stored_at: Instant::now(),
            looked_at: Instant::now(),
            params,
            lease,
            stored,
            prepared,
            recorder,
            stream,
        })
    }

    /// Reads until something ends it.
    ///
    /// # Errors
    /// The connections' and the store's; from the stored position on everything comes again.
    pub(super) async fn run(mut self) -> Result<SessionEnd, CaptureError> {
        let mut leadership = self.params.leadership.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            if self.wants_chunk() {
                self.read_chunk().await?;
            }
            let message = match self.stream.next().now_or_never() {
                Some(message) => message?,
                None => {
                    self.hand_over.flush().await?;
                    tokio::select! {
                        message = self.stream.next() => message?,
                        () = self.hand_over.settled_some() => {
                            if let Some(end) = self.settle().await? {
                                break end;
                            }
                            continue;
                        }
                        _ = tick.tick() => {
                            if let Some(end) = self.look_around().await? {
                                break end;
                            }
                            continue;
                        }
                        () = leadership.lost(self.lease) => break SessionEnd::Lost,
                        () = self.params.lifecycle.reached(Phase::Draining) => break SessionEnd::Draining,
                    }
                }
            };
            self.take(message).await?;
            if self.hand_over.is_full() {
                self.hand_over.flush().await?;
                if self.params.lifecycle.phase() >= Phase::Draining {
                    break SessionEnd::Draining;
                }
                let end = match self.settle().await? {
                    None if tick.tick().now_or_never().is_some() => self.look_around().await?,
                    end => end,
                };
                if let Some(end) = end {
                    break end;
                }
            }
        };
        self.end(ended).await
    }

    async fn take(&mut self, message: ReplicationMessage) -> Result<(), CaptureError> {
        match message {
            ReplicationMessage::Begin(transaction) => self.transaction = Some(transaction),
            ReplicationMessage::Relation(relation) => self.relation(&relation).await?,
            ReplicationMessage::Change(change) => self.change(&change),
            ReplicationMessage::Truncate { lsn, relations } => {
                for relation in relations {
                    self.truncate(lsn, &relation);
                }
            }
            ReplicationMessage::Logical {
                lsn,
                prefix,
                content,
                ..
            } => {
                if prefix == self.params.prefix() {
                    self.watermark(lsn, &content).await?;
                }
            }
            ReplicationMessage::Commit { end_lsn, .. } => {
                if let Some(transaction) = self.transaction.take()
                    && self.unread().is_some()
                    && (self.chunk.as_ref()).is_none_or(|chunk| chunk.misses(transaction.xid))
                {
                    self.had.insert(transaction.xid);
                }
                self.hand_over.mark(Mark::Place(end_lsn));
            }
            ReplicationMessage::Keepalive { wal_end } if self.transaction.is_none() => {
                self.hand_over.mark(Mark::Place(wal_end));
                self.settle_idle().await?;
            }
            ReplicationMessage::Keepalive { .. } => {}
        }
        Ok(())
    }

    async fn relation(&mut self, relation: &Relation) -> Result<(), CaptureError> {
        let name = format!("{}.{}", relation.schema, relation.name);
        if !self.prepared.tables.contains_key(&name) {
            // A partition of a captured table, or a table that has left the settings, or has got another name: it has no shape
            // from here on.
            self.shapes.remove(&relation.oid);
            let mut tables = self.prepared.tables.iter();
            if let Some((name, _)) = tables.find(|(_, table)| table.oid == relation.oid) {
                self.read_anew(name.clone());
            }
            return Ok(());
        }
        let shape = self.prepared.shape_of(relation, self.params).await?;
        self.shapes.insert(relation.oid, Arc::new(shape));
        Ok(())
    }

    fn change(&mut self, change: &RowChange) {
        let oid = change.relation.oid;
        // A relation comes before its first change.
        let (Some(shape), Some(transaction)) = (self.shapes.get(&oid), &self.transaction) else {
            return;
        };
        let (old, new) = match &change.kind {
            RowChangeKind::Insert { new } => (None, Some(new)),
            RowChangeKind::Update { old, new } => (old.as_ref(), Some(new)),
            RowChangeKind::Delete { old } => (Some(old), None),
        };
        let is_full = matches!(old, Some(OldTuple::Full(_)));
        let lacks = !is_full && new.is_some_and(|new| new.contains(&ColumnText::Unchanged));
        let old = old.and_then(|old| shape.key_texts(old.tuple()));
        let new = new.and_then(|new| shape.key_texts(new));
        let moved_to = new
            .as_ref()
            .filter(|_| lacks && old.is_some() && old != new);
        let moved_to = moved_to.cloned();
        if let Some(chunk) = &mut self.chunk {
            for (key, lacks) in [(old, false), (new, lacks)] {
                if let Some(key) = key {
                    chunk.change(oid, key, lacks);
                }
            }
        }
        let table = shape.table();
        let recorded = self.recorder.change(shape, transaction, change);
        self.add(recorded);
        if let Some(key) = moved_to {
            self.read_again(table, &key);
        }
    }

    fn truncate(&mut self, lsn: Lsn, relation: &Relation) {
        let (Some(shape), Some(transaction)) = (self.shapes.get(&relation.oid), &self.transaction)
        else {
            return;
        };
        if let Some(chunk) = &mut self.chunk {
            chunk.empty(relation.oid);
        }
        let recorded = self.recorder.truncate(shape, transaction, lsn);
        self.add(Recorded::from_buf([recorded]));
    }

    fn add(&mut self, recorded: Recorded) {
        self.has_changes = true;
        self.params
            .metrics
            .capture_changes
            .with_label_values(&[self.params.name()])
            .inc_by(recorded.len() as u64);
        for one in recorded {
            self.hand_over.add(one);
        }
    }

    /// Takes note of what is durable.
    async fn settle(&mut self) -> Result<Option<SessionEnd>, CaptureError> {
        let mut is_chunk = false;
        for mark in self.hand_over.settled()? {
            match mark {
                Mark::Place(place) => self.durable = self.durable.max(place),
                Mark::Chunk { table, snapshot } => {
                    is_chunk = true;
                    self.stored.state.tables.insert(table, snapshot);
                }
                Mark::Moved { table, key } => {
                    if let Some(snapshot) = self.stored.state.tables.get_mut(&table) {
                        snapshot.read_again(key);
                    }
                }
            }
        }
        if is_chunk {
            failpoint::hit("capture.chunk_stored");
            return self.store_position().await;
        }
        Ok(None)
    }

    /// Stores the position at once when much log without changes has gone by, so that the slot keeps no more of it.
    async fn settle_idle(&mut self) -> Result<(), CaptureError> {
        self.settle().await?;
        let stored = self.stored.state.lsn().unwrap_or_default();
        if self.hand_over.is_empty()
            && self.durable.bytes_after(stored) >= IDLE_BYTES
            && self.stored_at.elapsed() >= IDLE_PAUSE
        {
            // A command is noticed with the next tick.
            self.store_position().await?;
        }
        Ok(())
    }

    /// Each second: stores the position, and looks for commands.
    async fn look_around(&mut self) -> Result<Option<SessionEnd>, CaptureError> {
        if let Some(end) = self.settle().await? {
            return Ok(Some(end));
        }
        self.show_unread();
        if self.looked_at.elapsed() >= LOOK_AT_TABLES {
            self.looked_at = Instant::now();
            let (client, tables) = (&self.prepared.client, &self.prepared.tables);
            if are_altered(client, tables, &self.stored.state).await? {
                return Ok(Some(SessionEnd::Altered));
            }
        }
        let stored = self.stored.state.lsn().unwrap_or_default();
        let advanced = self.durable > stored;
        if advanced && (self.has_changes || self.stored_at.elapsed() >= IDLE_TICK) {
            return self.store_position().await;
        }
        let newest = StoredState::load(&*self.params.store, self.params.name()).await?;
        Ok(newest
            .differs(&self.stored)
            .then_some(SessionEnd::Commanded))
    }

    async fn store_position(&mut self) -> Result<Option<SessionEnd>, CaptureError> {
        let state = CaptureState {
            position: Some(self.durable.to_string()),
            timeline: self.prepared.identity.timelines.of(self.durable),
            ..self.stored.state.clone()
        };
        let (store, token) = (&*self.params.store, self.lease.token);
        if !self.stored.store(store, token, state).await? {
            let newest = StoredState::load(store, self.params.name()).await?;
            return Ok(Some(match newest.is_newer_than(token) {
                true => SessionEnd::Lost,
                false => SessionEnd::Commanded,
            }));
        }
        failpoint::hit("capture.position_stored");
        self.stream.confirm(self.durable);
        (self.has_changes, self.stored_at) = (!self.hand_over.is_empty(), Instant::now());
        Ok(None)
    }

    /// Shows how many tables are to be read.
    fn show_unread(&self) {
        let tables = self.stored.state.tables.values();
        let unread = tables.filter(|table| table.done_at.is_none());
        let unread = i64::try_from(unread.count()).unwrap_or(i64::MAX);
        let gauge = &self.params.metrics.capture_tables_unread;
        gauge.with_label_values(&[self.params.name()]).set(unread);
    }

    /// Ends the stream. What was handed over becomes durable before, unless another process has taken over.
    async fn end(mut self, end: SessionEnd) -> Result<SessionEnd, CaptureError> {
        if end != SessionEnd::Lost {
            self.hand_over.flush().await?;
            while !self.hand_over.is_empty() {
                self.hand_over.settled_some().await;
                if self.settle().await?.is_some() {
                    break;
                }
            }
            self.store_position().await?;
        }
        self.hand_over.close().await;
        self.stream.close().await;
        tracing::info!(capture = self.params.name(), ?end, "capturing ended");
        Ok(end)
    }
}

//! A chunk of a snapshot: rows that are read between two watermarks in the log of the captured server.
//!
//! The method is that of DBLog (Andreakis and Papapanagiotou, 2020): a row of the chunk is left out if the stream has a
//! change of its key between the watermarks, since that change is the newer one. A transaction whose commit the stream
//! has before the first watermark, and whose changes the chunk does not see yet (its commit was written and not made
//! visible), would be overwritten by older rows: such a chunk is read again.
//!
//! A change can lack large values that it did not touch. If it leaves out a row of the chunk, a later chunk reads that row
//! again. So it does with a row that such a change has moved to another key: where it was it may be unread, and where it
//! is all may have been read.

use super::catalog::server::emit;
use super::message::Tuple;
use super::reading::{ChunkPlan, ChunkRows, KeyTexts, texts};
use super::state::TableSnapshot;
use super::visible::Visible;
use super::{CaptureError, TableShape};
use crate::event::item;
use chrono::{DateTime, Utc};
use std::collections::HashSet;
use tokio_postgres::Client;
use uuid::Uuid;

/// A chunk that was read and waits for its watermarks in the stream.
pub(super) struct Chunk {
    pub(super) table: String,
    pub(super) shape: TableShape,
    pub(super) snapshot: Uuid,
    /// The contents of the two watermarks.
    low: String,
    high: String,
    /// Whether the first one was met.
    is_open: bool,
    found: ChunkRows,
    /// Keys that were changed between the watermarks.
    changed: HashSet<KeyTexts>,
    /// Keys of the chunk with changes that left out values which only the chunk has: leaving the row out would lose them.
    lacking: HashSet<KeyTexts>,
    /// The table was emptied between the watermarks.
    emptied: bool,
    visible: Visible,
    /// When the watermark was written, by the server's clock.
    pub(super) time: DateTime<Utc>,
}

/// Where a message of the log stands to a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watermark {
    Low,
    High,
}

impl Chunk {
    /// Writes the watermarks and reads the rows between them. Of the transactions that the stream had, `had` keeps those
    /// that the chunk does not see, also if it cannot be read.
    pub(super) async fn read(
        client: &Client,
        prefix: &str,
        plan: ChunkPlan<'_>,
        had: &mut HashSet<u32>,
    ) -> Result<Self, CaptureError> {
        let [low, high] = [(); 2].map(|()| Uuid::new_v4().to_string());
        emit(client, false, prefix, &low).await?;
        let read = plan.read(client, had).await;
        if read.is_err() {
            // The next statement begins outside of a transaction.
            client.batch_execute("ROLLBACK").await?;
        }
        let (shape, found, visible) = read?;
        let time = client
            .query_one("SELECT clock_timestamp()", &[])
            .await?
            .try_get(0)?;
        emit(client, false, prefix, &high).await?;
        Ok(Self {
            table: shape.table(),
            shape,
            snapshot: plan.snapshot.id,
            low,
            high,
            is_open: false,
            found,
            changed: HashSet::new(),
            lacking: HashSet::new(),
            emptied: false,
            visible,
            time,
        })
    }

    /// Whether a message of the log is one of its watermarks.
    pub(super) fn watermark(&self, content: &[u8]) -> Option<Watermark> {
        if content == self.low.as_bytes() {
            Some(Watermark::Low)
        } else if content == self.high.as_bytes() {
            Some(Watermark::High)
        } else {
            None
        }
    }

    /// From here on changes count.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Whether it does not see what this transaction has changed.
    pub(super) fn misses(&self, xid: u32) -> bool {
        self.visible.misses(xid)
    }

    /// Takes note of a changed key. `lacks` says that the change has not all values of the row that has this key now.
    pub(super) fn change(&mut self, oid: u32, key: KeyTexts, lacks: bool) {
        if self.is_open && self.shape.oid == oid {
            if lacks && self.found.keys.contains(&key) {
                self.lacking.insert(key.clone());
            }
            self.changed.insert(key);
        }
    }

    /// Takes note of an emptied table.
    pub(super) fn empty(&mut self, oid: u32) {
        self.emptied |= self.is_open && self.shape.oid == oid;
    }

    /// The rows that no change has overtaken, and how far the snapshot has got with them. `None` if more rows than can be
    /// kept track of are to be read again: then the whole chunk is.
    pub(super) fn close(self, before: &TableSnapshot) -> Option<(Vec<Tuple>, TableSnapshot)> {
        let ChunkRows {
            rows,
            after,
            is_last,
            again,
            ..
        } = self.found;
        let mut snapshot = before.clone();
        snapshot.again.retain(|key| !again.contains(key));
        for key in &self.lacking {
            if !snapshot.read_again(texts(key)) {
                return None;
            }
        }
        if after.is_some() {
            snapshot.after = after;
        }
        snapshot.rows += rows.len() as u64;
        snapshot.done_at = (is_last && snapshot.again.is_empty()).then(item::now);
        let is_current = |key: &KeyTexts| !self.emptied && !self.changed.contains(key);
        let rows = rows.into_iter().filter(|(key, _)| is_current(key));
        Some((rows.map(|(_, row)| row).collect(), snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::ColumnRules;
    use crate::capture::catalog::{CapturedTable, TableColumn};
    use crate::capture::message::ReplicaIdentity;
    use bytes::Bytes;
    use std::collections::HashMap;

    const TABLE: u32 = 7;

    fn key(name: &str) -> KeyTexts {
        vec![Bytes::copy_from_slice(name.as_bytes())]
    }

    /// An open chunk of these rows, of which `again` were read again.
    fn chunk(rows: &[&str], again: &[&str], is_last: bool) -> Chunk {
        let table = CapturedTable {
            oid: TABLE,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            partitioned: false,
            identity: ReplicaIdentity::Default,
            columns: vec![TableColumn {
                name: "id".to_owned(),
                type_oid: 25,
                type_modifier: -1,
            }],
            key: vec!["id".to_owned()],
            types: HashMap::new(),
        };
        let all = || rows.iter().chain(again).map(|name| key(name));
        Chunk {
            table: "public.t".to_owned(),
            shape: TableShape::of_table(&table, &ColumnRules::default()).unwrap(),
            snapshot: Uuid::nil(),
            low: String::new(),
            high: String::new(),
            is_open: true,
            found: ChunkRows {
                rows: all().map(|key| (key, Tuple::new())).collect(),
                after: rows.last().map(|name| texts(&key(name))),
                is_last,
                again: again.iter().map(|name| texts(&key(name))).collect(),
                keys: all().collect(),
            },
            changed: HashSet::new(),
            lacking: HashSet::new(),
            emptied: false,
            visible: Visible::default(),
            time: Utc::now(),
        }
    }

    #[test]
    fn a_row_whose_change_lacks_values_is_read_again() {
        let mut snapshot = TableSnapshot::requested();
        let mut first = chunk(&["a", "b", "c"], &[], true);
        first.change(TABLE, key("a"), true);
        first.change(TABLE, key("b"), false);
        first.change(TABLE, key("elsewhere"), true);
        first.change(TABLE + 1, key("c"), true);
        let (rows, after) = first.close(&snapshot).unwrap();
        assert_eq!((rows.len(), after.rows), (1, 3));
        assert_eq!(
            (&after.again, after.done_at),
            (&vec![vec!["a".to_owned()]], None)
        );
        // It is changed once more, and a row has moved there that was gone.
        snapshot = after;
        assert!(snapshot.read_again(vec!["gone".to_owned()]));
        let mut second = chunk(&[], &["a", "gone"], true);
        second.change(TABLE, key("a"), true);
        let (rows, after) = second.close(&snapshot).unwrap();
        assert_eq!((rows.len(), after.again.len()), (1, 1));
        assert_eq!(after.after, Some(vec!["c".to_owned()]));
        let (rows, after) = chunk(&[], &["a"], true).close(&after).unwrap();
        assert_eq!((rows.len(), after.again.len()), (1, 0));
        assert!(after.done_at.is_some());
    }

    #[test]
    fn a_key_that_comes_while_the_chunk_is_read_stays() {
        let mut snapshot = TableSnapshot::requested();
        let chunk = chunk(&["a"], &["b"], true);
        snapshot.read_again(vec!["b".to_owned()]);
        snapshot.read_again(vec!["moved".to_owned()]);
        let (_, after) = chunk.close(&snapshot).unwrap();
        assert_eq!(after.again, [["moved".to_owned()]]);
    }

    #[test]
    fn a_chunk_with_too_many_rows_to_be_read_again_is_read_again_itself() {
        let names: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut chunk = chunk(&names, &[], true);
        for name in &names {
            chunk.change(TABLE, key(name), true);
        }
        assert!(chunk.close(&TableSnapshot::requested()).is_none());
    }
}

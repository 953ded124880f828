//! The snapshots of a session: chunk after chunk, between the changes of the stream.

use super::chunk::{Chunk, Watermark};
use super::in_hand::Mark;
use super::reading::{ChunkPlan, KeyTexts, texts};
use super::session::Session;
use super::state::TableSnapshot;
use super::{CaptureError, Lsn};
use crate::store::ErrorKind;
use std::time::{Duration, Instant};

/// How long a chunk waits that could not be read, or has to be read again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(100));

impl Session<'_> {
    /// Whether a chunk is to be read now.
    pub(super) fn wants_chunk(&self) -> bool {
        self.chunk.is_none() && !self.hand_over.has_no_room() && self.readable().is_some()
    }

    /// The first table of which something is left to read, and whose snapshot does not wait.
    fn readable(&self) -> Option<(&String, &TableSnapshot)> {
        let now = Instant::now();
        let may_go_on = |name: &String| self.waiting.get(name).is_none_or(|until| now >= *until);
        let mut tables = self.read.iter();
        tables.find(|(name, snapshot)| snapshot.done_at.is_none() && may_go_on(name))
    }

    /// Has the snapshot of a table wait. Those of other tables go on meanwhile.
    fn wait_with(&mut self, table: String, pause: Duration) {
        self.waiting.insert(table, Instant::now() + pause);
    }

    /// The first table of which something is left to read, as far as this session has read.
    pub(super) fn unread(&self) -> Option<(&String, &TableSnapshot)> {
        let mut tables = self.read.iter();
        tables.find(|(_, snapshot)| snapshot.done_at.is_none())
    }

    /// Reads the next chunk. The stream waits meanwhile, which the server bears.
    pub(super) async fn read_chunk(&mut self) -> Result<(), CaptureError> {
        let Some((name, snapshot)) = self.readable() else {
            return Ok(());
        };
        let (name, snapshot) = (name.clone(), snapshot.clone());
        let Some(wanted) = self.prepared.name_of(&name) else {
            return Ok(());
        };
        let (client, prefix) = (&self.prepared.client, self.params.prefix());
        let (rules, rows) = (self.params.rules(&name), self.params.settings.chunk_rows);
        let had = &mut self.had;
        let plan = ChunkPlan {
            table: &wanted,
            rules: &rules,
            snapshot: &snapshot,
            rows,
        };
        match Chunk::read(client, &prefix, plan, had).await {
            Ok(chunk) => {
                self.chunk = Some(chunk);
                self.params.slot_watch.snapshot_goes_on(&name);
            }
            Err(error) if error.kind() == ErrorKind::Outage => return Err(error),
            Err(error) => {
                tracing::warn!(capture = self.params.name(), table = name, %error, "a snapshot waits");
                self.params
                    .slot_watch
                    .snapshot_waits(&name, &error.to_string());
                self.wait_with(name, AGAIN.0);
            }
        }
        Ok(())
    }

    /// Has a row read again, if the snapshot of its table is not complete, whose change of the key lacks values: where it was
    /// it may be unread, and where it is all may have been read. The key is stored as soon as the position behind the change
    /// is. Of too many such rows the whole table is read again.
    pub(super) fn read_again(&mut self, table: String, key: &KeyTexts) {
        let Some(snapshot) = self.read.get_mut(&table) else {
            return;
        };
        let is_being_read = (self.chunk.as_ref()).is_some_and(|chunk| chunk.table == table);
        // What begins, or begins again, reads the row where it is now.
        if snapshot.done_at.is_some() || snapshot.after.is_none() && !is_being_read {
            return;
        }
        let key = texts(key);
        if snapshot.read_again(key.clone()) {
            self.hand_over.mark(Mark::Moved { table, key });
            return;
        }
        tracing::warn!(
            capture = self.params.name(),
            table,
            "the snapshot of a table begins again: too many of its rows change their keys"
        );
        (snapshot.after, snapshot.again) = (None, Vec::new());
        let snapshot = snapshot.clone();
        if is_being_read {
            self.chunk = None;
        }
        self.hand_over.mark(Mark::Chunk { table, snapshot });
    }

    /// Has a table read anew: it has another name in the stream for a time, and what changes it then is not recorded.
    pub(super) fn read_anew(&mut self, table: String) {
        let entry = self.read.get(&table).and_then(|snapshot| snapshot.entry);
        let snapshot = TableSnapshot {
            entry,
            ..TableSnapshot::requested()
        };
        self.chunk.take_if(|chunk| chunk.table == table);
        self.read.insert(table.clone(), snapshot.clone());
        self.hand_over.mark(Mark::Chunk { table, snapshot });
    }

    /// A watermark has come with the stream.
    pub(super) async fn watermark(&mut self, lsn: Lsn, content: &[u8]) -> Result<(), CaptureError> {
        let Some(chunk) = &mut self.chunk else {
            return Ok(());
        };
        match chunk.watermark(content) {
            Some(Watermark::Low) if self.had.is_empty() => chunk.open(),
            Some(Watermark::Low) => {
                tracing::debug!("a chunk is read again: a transaction before it was not visible");
                if let Some(chunk) = self.chunk.take() {
                    self.wait_with(chunk.table, AGAIN.1);
                }
            }
            Some(Watermark::High) => self.close_chunk(lsn).await?,
            None => {}
        }
        Ok(())
    }

    /// Hands over the rows of a chunk that no change has overtaken.
    async fn close_chunk(&mut self, lsn: Lsn) -> Result<(), CaptureError> {
        let Some(chunk) = self.chunk.take() else {
            return Ok(());
        };
        let (name, time, id) = (chunk.table.clone(), chunk.time, chunk.snapshot);
        let shape = chunk.shape.clone();
        let Some(before) = self.read.get(&name).filter(|one| one.id == id) else {
            return Ok(());
        };
        let read_before = before.rows;
        let Some((rows, snapshot)) = chunk.close(before) else {
            self.wait_with(name, AGAIN.1);
            return Ok(());
        };
        let metrics = &self.params.metrics;
        let counted = metrics
            .capture_snapshot_rows
            .with_label_values(&[self.params.name()]);
        let read = snapshot.rows.saturating_sub(read_before);
        counted.inc_by(read);
        let id = id.to_string();
        for row in rows {
            let recorded = self.recorder.row(&shape, &id, (lsn, time), &row);
            self.hand_over.add(recorded);
            if self.hand_over.is_full() {
                self.hand_over.flush().await?;
            }
        }
        if snapshot.done_at.is_some() {
            let (rows, table) = (snapshot.rows, &name);
            tracing::info!(
                capture = self.params.name(),
                table,
                rows,
                "a table was read"
            );
        } else if !snapshot.again.is_empty() && read < self.params.settings.chunk_rows as u64 {
            // Rows at the end that are changed again and again are not read without a pause.
            self.wait_with(name.clone(), AGAIN.1);
        }
        self.read.insert(name.clone(), snapshot.clone());
        let table = name;
        self.hand_over.mark(Mark::Chunk { table, snapshot });
        Ok(())
    }
}

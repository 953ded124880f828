//! Records: the event of each change, and of each row of a snapshot.

mod debezium;
mod flat;
mod row;

use super::message::{
    ColumnText, OldTuple, ReplicatedTransaction, RowChange, RowChangeKind, Tuple,
};
use super::value::{ValueStyle, ValueWriter};
use super::{Lsn, TableShape, Timelines};
use crate::event::{Event, Source, id, item};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::sync::Arc;
use uuid::Uuid;

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordEnvelope {
    /// The row's values at the top, beside `op`, `ts_ms`, `lsn`, `table` and `key`.
    Flat,
    /// Debezium's: `before`, `after`, `source`, `op`, `ts_ms`.
    Debezium,
}

/// What became of a row, by the letter in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// Read by a snapshot.
    Read,
    Truncate,
}

impl Operation {
    /// The letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "c",
            Operation::Update => "u",
            Operation::Delete => "d",
            Operation::Read => "r",
            Operation::Truncate => "t",
        }
    }
}

/// Where and when something was recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordPoint {
    pub lsn: Lsn,
    /// Place of the commit; of a row of a snapshot its watermark.
    pub commit_lsn: Lsn,
    /// Time of the commit by the database's clock; of a row of a snapshot that of its watermark.
    pub time: DateTime<Utc>,
    pub xid: Option<u32>,
}

/// A record without a place in the log: what an event cannot hold, or is too large.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The id that the event would have.
    pub event_id: Uuid,
    pub event_type: String,
    pub lsn: Lsn,
    pub time: DateTime<Utc>,
    /// The record without the values of the row: `op`, `ts_ms`, `lsn`, `table` and, where it can be written, `key`.
    pub data: Box<RawValue>,
    /// Why, as a sentence without values.
    pub reason: String,
}

/// The events of one change: one, but two in Debezium's envelope if the key has changed.
pub type Recorded = SmallVec<[Result<Event, Refused>; 1]>;

/// The writer of a capture's records.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// The name of the capture, which is the producer of its events.
    pub capture: Arc<str>,
    /// `system_identifier` of the captured server.
    pub system: u64,
    pub timelines: Timelines,
    /// Name of the captured database.
    pub database: String,
    pub envelope: RecordEnvelope,
    /// Bytes of a record at most.
    pub max_bytes: Option<usize>,
    /// Levels of nesting in `eventData`.
    pub max_depth: usize,
}

/// One record to be written.
struct Entry<'a> {
    shape: &'a TableShape,
    operation: Operation,
    point: RecordPoint,
    /// The row that the key is taken from.
    keyed: Option<&'a Tuple>,
    old_key: Option<&'a Tuple>,
    before: Option<&'a OldTuple>,
    after: Option<&'a Tuple>,
}

impl Entry<'_> {
    /// Whether the row is known, or none is meant.
    fn has_key(&self) -> bool {
        let is_known = |(_, value)| matches!(value, &ColumnText::Text(_));
        self.keyed
            .is_none_or(|keyed| self.shape.key_values(keyed).all(is_known))
    }
}

/// Why a row is not known.
const NO_KEY: &str = "the log does not have the row's primary key, or not as a whole";

impl Recorder {
    /// The events of a change. `shape` is that of the change's relation.
    pub fn change(
        &self,
        shape: &TableShape,
        transaction: &ReplicatedTransaction,
        change: &RowChange,
    ) -> Recorded {
        let point = RecordPoint {
            lsn: change.lsn,
            commit_lsn: transaction.final_lsn,
            time: transaction.commit_time,
            xid: Some(transaction.xid),
        };
        let entry = |operation, keyed| Entry {
            shape,
            operation,
            point,
            keyed: Some(keyed),
            old_key: None,
            before: None,
            after: None,
        };
        let record = |half: u64, entry: Entry<'_>| {
            let place = u64::from(change.place) << 1 | half;
            self.record(self.change_id(shape, &point, place), entry)
        };
        match &change.kind {
            RowChangeKind::Insert { new } => SmallVec::from_buf([record(
                0,
                Entry {
                    after: Some(new),
                    ..entry(Operation::Create, new)
                },
            )]),
            RowChangeKind::Delete { old } => SmallVec::from_buf([record(
                0,
                Entry {
                    before: Some(old),
                    ..entry(Operation::Delete, old.tuple())
                },
            )]),
            RowChangeKind::Update { old, new } => {
                let filled = filled(old.as_ref(), new);
                let new = filled.as_ref().unwrap_or(new);
                let changed = old
                    .as_ref()
                    .map(OldTuple::tuple)
                    .filter(|old| shape.key_texts(old) != shape.key_texts(new));
                if let (Some(old), Some(_), RecordEnvelope::Debezium) =
                    (old, changed, self.envelope)
                {
                    let mut both = Recorded::new();
                    both.push(record(
                        0,
                        Entry {
                            before: Some(old),
                            ..entry(Operation::Delete, old.tuple())
                        },
                    ));
                    both.push(record(
                        1,
                        Entry {
                            after: Some(new),
                            ..entry(Operation::Create, new)
                        },
                    ));
                    return both;
                }
                SmallVec::from_buf([record(
                    0,
                    Entry {
                        old_key: changed,
                        before: old.as_ref(),
                        after: Some(new),
                        ..entry(Operation::Update, new)
                    },
                )])
            }
        }
    }

    /// The event of a table that was emptied.
    ///
    /// # Errors
    /// No event can hold it.
    pub fn truncate(
        &self,
        shape: &TableShape,
        transaction: &ReplicatedTransaction,
        lsn: Lsn,
    ) -> Result<Event, Refused> {
        let point = RecordPoint {
            lsn,
            commit_lsn: transaction.final_lsn,
            time: transaction.commit_time,
            xid: Some(transaction.xid),
        };
        let entry = Entry {
            shape,
            operation: Operation::Truncate,
            point,
            keyed: None,
            old_key: None,
            before: None,
            after: None,
        };
        self.record(self.change_id(shape, &point, 0), entry)
    }

    /// The event of a row that the snapshot `snapshot` read, in a chunk whose watermark is at `lsn` and was written at
    /// `time`.
    ///
    /// # Errors
    /// No event can hold it.
    pub fn row(
        &self,
        shape: &TableShape,
        snapshot: &str,
        (lsn, time): (Lsn, DateTime<Utc>),
        row: &Tuple,
    ) -> Result<Event, Refused> {
        let point = RecordPoint {
            lsn,
            commit_lsn: lsn,
            time,
            xid: None,
        };
        let key = shape.key_texts(row).unwrap_or_default();
        let key: SmallVec<[&[u8]; 4]> = key.iter().map(|text| &text[..]).collect();
        let table = shape.table();
        let event_id = id::of_snapshot_row(&self.capture, snapshot, &table, &key, lsn.0, time);
        let entry = Entry {
            shape,
            operation: Operation::Read,
            point,
            keyed: Some(row),
            old_key: None,
            before: None,
            after: Some(row),
        };
        self.record(event_id, entry)
    }

    fn change_id(&self, shape: &TableShape, point: &RecordPoint, place: u64) -> Uuid {
        let origin = id::ChangeOrigin {
            capture: &self.capture,
            system: self.system,
            timeline: self.timelines.of(point.lsn),
            lsn: point.lsn.0,
        };
        id::of_change(&origin, &shape.table(), place, point.time)
    }

    fn record(&self, event_id: Uuid, entry: Entry<'_>) -> Result<Event, Refused> {
        let written = match self.envelope {
            _ if !entry.has_key() => Err(NO_KEY.to_owned()),
            RecordEnvelope::Flat => self.flat(&entry),
            RecordEnvelope::Debezium => self.debezium(&entry),
        };
        let data = written.and_then(|bytes| self.checked(bytes));
        match data {
            Ok(event_data) => Ok(Event {
                event_id,
                original_id: None,
                producer: Arc::clone(&self.capture),
                user_id: None,
                event_type: entry.shape.event_type(),
                event_data,
                schema_version: None,
                session_id: None,
                timestamp: Some(entry.point.time),
                received_at: item::now(),
                source: Source::Capture,
            }),
            Err(reason) => Err(Refused {
                event_id,
                event_type: entry.shape.event_type(),
                lsn: entry.point.lsn,
                time: entry.point.time,
                data: self.without_values(&entry),
                reason,
            }),
        }
    }

    fn checked(&self, bytes: Vec<u8>) -> Result<Box<RawValue>, String> {
        if let Some(limit) = self.max_bytes.filter(|limit| bytes.len() > *limit) {
            return Err(format!(
                "the record has {} bytes, and the limit is {limit}",
                bytes.len()
            ));
        }
        let text = String::from_utf8(bytes).map_err(|_| "the record is not UTF-8".to_owned())?;
        RawValue::from_string(text).map_err(|error| format!("the record is not JSON: {error}"))
    }

    fn writer(&self) -> ValueWriter {
        ValueWriter {
            style: match self.envelope {
                RecordEnvelope::Flat => ValueStyle::Plain,
                RecordEnvelope::Debezium => ValueStyle::Debezium,
            },
            // The record itself, and `before`.
            max_depth: self.max_depth.saturating_sub(2),
        }
    }
}

/// The new row with what an update did not touch taken from the old one, as far as the log has it: with the identity
/// FULL all of it, else a large key.
fn filled(old: Option<&OldTuple>, new: &Tuple) -> Option<Tuple> {
    let old = old?.tuple();
    if !new.contains(&ColumnText::Unchanged) {
        return None;
    }
    let value = |(new, old): (&ColumnText, &ColumnText)| match (new, old) {
        (ColumnText::Unchanged, ColumnText::Text(_)) => old.clone(),
        _ => new.clone(),
    };
    Some(new.iter().zip(old).map(value).collect())
}

//! The flat record: the row's values at the top, beside what is known of the change.

use super::super::message::{ColumnText, OldTuple, Tuple};
use super::super::shape::ColumnTreatment;
use super::row::{Missing, Naming, close, members, object, pairs};
use super::{Entry, Recorder};
use crate::capture::value::ValueWriter;
use serde_json::value::RawValue;
use std::io::Write as _;

impl Recorder {
    /// Writes an entry as a flat record.
    pub(super) fn flat(&self, entry: &Entry<'_>) -> Result<Vec<u8>, String> {
        let writer = self.writer();
        let mut out = head(entry);
        key(&writer, entry, &mut out)?;
        if let Some(old) = entry.old_key {
            out.extend_from_slice(b"\"oldKey\":");
            let values = entry.shape.key_values(old);
            object(&writer, values, Missing::LeaveOut, &mut out)?;
            out.push(b',');
        }
        let columns = &entry.shape.columns;
        let top = (Naming::Top, Missing::LeaveOut);
        match (entry.after, entry.keyed) {
            (Some(row), _) => {
                unchanged(entry, row, &mut out);
                members(&writer, pairs(columns, row), top, &mut out)?;
            }
            (None, Some(old)) => members(&writer, entry.shape.key_values(old), top, &mut out)?,
            (None, None) => {}
        }
        if let Some(OldTuple::Full(old)) = entry.before {
            out.extend_from_slice(b"\"before\":");
            object(&writer, pairs(columns, old), Missing::LeaveOut, &mut out)?;
            out.push(b',');
        }
        close(&mut out, b'}');
        Ok(out)
    }

    /// What a dead letter keeps of an entry: everything but the values of the row.
    pub(super) fn without_values(&self, entry: &Entry<'_>) -> Box<RawValue> {
        let mut out = head(entry);
        let before_key = out.len();
        if key(&self.writer(), entry, &mut out).is_err() {
            out.truncate(before_key);
        }
        close(&mut out, b'}');
        let text = String::from_utf8_lossy(&out).into_owned();
        RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// `{"op":…,"ts_ms":…,"lsn":…,"table":…,`
fn head(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let operation = entry.operation.as_str();
    let (lsn, millis) = (entry.point.lsn, entry.point.time.timestamp_millis());
    // A vector takes everything.
    let _ = write!(
        out,
        "{{\"op\":\"{operation}\",\"ts_ms\":{millis},\"lsn\":\"{lsn}\",\"table\":"
    );
    let _ = serde_json::to_writer(&mut out, &entry.shape.table());
    out.push(b',');
    out
}

fn key(writer: &ValueWriter, entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(keyed) = entry.keyed else {
        return Ok(());
    };
    out.extend_from_slice(b"\"key\":");
    object(
        writer,
        entry.shape.key_values(keyed),
        Missing::LeaveOut,
        out,
    )?;
    out.push(b',');
    Ok(())
}

/// The names of the columns whose values the log does not have.
fn unchanged(entry: &Entry<'_>, row: &Tuple, out: &mut Vec<u8>) {
    if !row.contains(&ColumnText::Unchanged) {
        return;
    }
    out.extend_from_slice(b"\"unchanged\":[");
    for (column, value) in pairs(&entry.shape.columns, row) {
        if *value == ColumnText::Unchanged && column.treatment != ColumnTreatment::Exclude {
            // The name without the colon.
            let name = column.member.strip_suffix(b":");
            out.extend_from_slice(name.unwrap_or_default());
            out.push(b',');
        }
    }
    close(out, b']');
    out.push(b',');
}

//! Debezium's envelope, as its JSON is with schemas disabled.

use super::super::message::{OldTuple, Tuple};
use super::row::{Missing, close, object, pairs};
use super::{Entry, Operation, Recorder};
use std::io::Write as _;

/// Stands in `source.version` and `source.connector`, by which consumers choose how to read.
const CONNECTOR: &str = "postgresql";

impl Recorder {
    /// Writes an entry in Debezium's envelope.
    ///
    /// `ts_ms` is the time of the commit, where Debezium has the time of its own clock: a record that is read again
    /// must be the same.
    pub(super) fn debezium(&self, entry: &Entry<'_>) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"before\":");
        self.debezium_row(entry, entry.before.map(OldTuple::tuple), &mut out)?;
        out.extend_from_slice(b"\"after\":");
        self.debezium_row(entry, entry.after, &mut out)?;
        self.source(entry, &mut out);
        let operation = entry.operation.as_str();
        let _ = write!(out, "\"transaction\":null,\"op\":\"{operation}\",");
        times(entry, &mut out);
        close(&mut out, b'}');
        Ok(out)
    }

    fn debezium_row(
        &self,
        entry: &Entry<'_>,
        row: Option<&Tuple>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        match row {
            Some(row) => {
                let columns = pairs(&entry.shape.columns, row);
                object(&self.writer(), columns, Missing::Placeholder, out)?;
            }
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        Ok(())
    }

    fn source(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let (point, shape) = (&entry.point, entry.shape);
        let snapshot = match entry.operation {
            Operation::Read => "incremental",
            _ => "false",
        };
        // A vector takes everything.
        let _ = write!(
            out,
            "\"source\":{{\"version\":\"eclusa-{}\",\"connector\":\"{CONNECTOR}\",\"snapshot\":\"{snapshot}\",\
             \"sequence\":\"[\\\"{}\\\",\\\"{}\\\"]\",\"lsn\":{},\"xmin\":null,",
            env!("CARGO_PKG_VERSION"),
            point.commit_lsn.0,
            point.lsn.0,
            point.lsn.0,
        );
        match point.xid {
            Some(xid) => drop(write!(out, "\"txId\":{xid},")),
            None => out.extend_from_slice(b"\"txId\":null,"),
        }
        for (name, value) in [
            ("name", &*self.capture),
            ("db", &self.database),
            ("schema", &shape.schema),
            ("table", &shape.name),
        ] {
            let _ = write!(out, "\"{name}\":");
            let _ = serde_json::to_writer(&mut *out, value);
            out.push(b',');
        }
        times(entry, out);
        close(out, b'}');
        out.push(b',');
    }
}

fn times(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let micros = entry.point.time.timestamp_micros();
    let millis = micros.div_euclid(1000);
    let _ = write!(
        out,
        "\"ts_ms\":{millis},\"ts_us\":{micros},\"ts_ns\":{},",
        micros.saturating_mul(1000)
    );
}

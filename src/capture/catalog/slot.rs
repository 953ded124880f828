//! The replication slot of a capture.

use super::server::place;
use crate::capture::{CaptureError, CaptureFault, Lsn};
use tokio_postgres::Client;

/// The output plugin of the slot.
const PLUGIN: &str = "pgoutput";

/// What the server keeps for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond it, and kept.
    Extended,
    /// To be removed by the next checkpoint, unless the slot moves.
    Unreserved,
    /// Removed: the slot is of no more use.
    Lost,
}

impl WalStatus {
    /// The word of `pg_replication_slots.wal_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "reserved" => WalStatus::Reserved,
            "extended" => WalStatus::Extended,
            "unreserved" => WalStatus::Unreserved,
            _ => WalStatus::Lost,
        }
    }
}

/// A slot, as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// The server's process that streams it.
    pub active_pid: Option<i32>,
    /// From here on the log is kept.
    pub restart_lsn: Option<Lsn>,
    /// Up to here everything is confirmed; a stream begins here or later.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub wal_status: WalStatus,
    /// Bytes that may be written before the slot is in danger of being lost; absent without a limit.
    pub safe_wal_size: Option<i64>,
    /// Bytes of the log that are not confirmed.
    pub lag_bytes: u64,
    /// Bytes of the log that are kept for the slot.
    pub kept_bytes: u64,
}

impl SlotState {
    /// Whether it is one for captures of this database.
    pub fn is_of(&self, database: &str) -> bool {
        self.plugin.as_deref() == Some(PLUGIN) && self.database.as_deref() == Some(database)
    }

    /// Checks that the slot is one for captures of `database`, and still of use.
    ///
    /// # Errors
    /// It is another one's, or has lost what it had not read.
    pub fn check(&self, slot: &str, database: &str) -> Result<(), CaptureError> {
        if !self.is_of(database) {
            return Err(foreign(slot));
        }
        if self.wal_status == WalStatus::Lost {
            return Err(CaptureError::operator(
                CaptureFault::SlotLost,
                format!(
                    "PostgreSQL has removed what the slot {slot} had not read yet (max_slot_wal_keep_size, \
                     idle_replication_slot_timeout), so changes are missing; drop the slot and take a new snapshot"
                ),
            ));
        }
        Ok(())
    }
}

/// A slot of this name is another one's, or may be. The names of slots belong to the whole server.
pub fn foreign(slot: &str) -> CaptureError {
    CaptureError::operator(
        CaptureFault::Other,
        format!(
            "the slot {slot} exists, and is not known as this capture's: another database or another Eclusa may use \
             it; set the capture's slot to another name, or if nothing uses it, SELECT \
             pg_drop_replication_slot('{slot}')"
        ),
    )
}

/// The slot of this name, if it is there.
///
/// # Errors
/// The server cannot be asked.
pub async fn find(client: &Client, slot: &str) -> Result<Option<SlotState>, CaptureError> {
    let row = client
        .query_opt(
            "SELECT plugin::text, database::text, active_pid, restart_lsn::text, confirmed_flush_lsn::text, \
             wal_status, safe_wal_size, \
             greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::int8 AS lag, \
             greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8 AS kept \
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let lsn = |column: &str| {
        let text: Option<&str> = row.try_get(column)?;
        text.map(place).transpose()
    };
    let bytes = |column: &str| {
        let bytes: Option<i64> = row.try_get(column)?;
        Ok::<_, CaptureError>(u64::try_from(bytes.unwrap_or_default()).unwrap_or_default())
    };
    Ok(Some(SlotState {
        plugin: row.try_get("plugin")?,
        database: row.try_get("database")?,
        active_pid: row.try_get("active_pid")?,
        restart_lsn: lsn("restart_lsn")?,
        confirmed_flush_lsn: lsn("confirmed_flush_lsn")?,
        // Absent of a slot without a place in the log: an invalidated one.
        wal_status: WalStatus::parse(
            row.try_get::<_, Option<&str>>("wal_status")?
                .unwrap_or_default(),
        ),
        safe_wal_size: row.try_get("safe_wal_size")?,
        lag_bytes: bytes("lag")?,
        kept_bytes: bytes("kept")?,
    }))
}

/// Makes the slot, after the publication: a stream looks for the publication as it was at the change. Waits for the
/// transactions that are open. Gives the place from which on the slot has everything.
///
/// # Errors
/// It exists, there are too many (`max_replication_slots`), or the user may not.
pub async fn create(client: &Client, slot: &str) -> Result<Lsn, CaptureError> {
    let made = client
        .query_one(
            "SELECT lsn::text FROM pg_create_logical_replication_slot($1, $2)",
            &[&slot, &PLUGIN],
        )
        .await;
    let context = |error| CaptureError::from(error).context("cannot make the slot");
    place(made.map_err(context)?.try_get(0)?)
}

/// Drops the slot, if it is there, so that the server no longer keeps its log for it. `false` if it was not there.
///
/// # Errors
/// A stream reads it, or the user may not.
pub async fn drop_slot(client: &Client, slot: &str) -> Result<bool, CaptureError> {
    let dropped = client
        .query_opt(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await;
    let context = |error| CaptureError::from(error).context("cannot drop the slot");
    Ok(dropped.map_err(context)?.is_some())
}

//! Captures as the API shows them.

use crate::capture::catalog::slot::SlotState;
use crate::capture::{CaptureActivity, CaptureOrder, CaptureState, CaptureStatus, TableSnapshot};
use crate::store::StoreError;
use crate::store::captures::CaptureRow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The captures that were ever begun, and those that this process declares.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CaptureList {
    pub captures: Vec<CaptureView>,
}

/// What a capture does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureWord {
    /// No process that was asked runs it; another one may.
    Waiting,
    Running,
    /// It fails, and is tried again and again.
    Failing,
    /// Changes are missing, or its slot was dropped by command: until a new snapshot is asked for.
    Stopped,
    /// A new slot and a new snapshot are asked for.
    Renewing,
    /// Its slot is to be dropped.
    Dropping,
}

/// A capture.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureView {
    #[schema(example = "shop")]
    pub name: String,
    pub state: CaptureWord,
    /// Why it does not run, or, while it runs, why the snapshot of a table waits.
    pub reason: Option<String>,
    /// The slot keeps much log, or is about to lose some.
    pub alarm: Option<String>,
    /// Null until it has begun; empty when it was dropped by command.
    #[schema(required, example = "eclusa_shop")]
    pub slot: Option<String>,
    /// Null until it has begun.
    #[schema(required)]
    pub publication: Option<String>,
    /// Everything before this place in the captured server's log is durable here.
    #[schema(example = "0/16B3748")]
    pub position: Option<String>,
    /// When its state was stored; null until it has begun.
    #[schema(required)]
    pub stored_at: Option<DateTime<Utc>>,
    pub tables: Vec<CapturedTableView>,
    /// The slot as the process that answers has seen it last; absent if another one captures.
    pub slot_state: Option<SlotView>,
}

/// A captured table.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapturedTableView {
    #[schema(example = "public.product")]
    pub table: String,
    /// Rows that its snapshot has read.
    pub rows: u64,
    pub requested_at: DateTime<Utc>,
    /// When its snapshot was complete.
    pub done_at: Option<DateTime<Utc>>,
}

/// A slot on the captured server.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotView {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes of log behind the confirmed position.
    pub lag_bytes: u64,
    /// Bytes of log that are kept for it.
    pub kept_bytes: u64,
}

impl From<SlotState> for SlotView {
    fn from(slot: SlotState) -> Self {
        Self {
            wal_status: slot.wal_status.as_str().to_owned(),
            lag_bytes: slot.lag_bytes,
            kept_bytes: slot.kept_bytes,
        }
    }
}

impl From<(String, TableSnapshot)> for CapturedTableView {
    fn from((table, snapshot): (String, TableSnapshot)) -> Self {
        Self {
            table,
            rows: snapshot.rows,
            requested_at: snapshot.requested_at,
            done_at: snapshot.done_at,
        }
    }
}

impl CaptureView {
    /// A capture by its row, and by what this process knows if it declares it.
    ///
    /// # Errors
    /// Another release has written the row.
    pub fn new(row: CaptureRow, status: Option<CaptureStatus>) -> Result<Self, StoreError> {
        let state = CaptureState::read(&row)?;
        let word = match (state.order, &state.stopped, &status) {
            (CaptureOrder::Renew, ..) => CaptureWord::Renewing,
            (CaptureOrder::Drop, ..) => CaptureWord::Dropping,
            (_, Some(_), _) => CaptureWord::Stopped,
            (_, _, Some(status)) => status.activity.into(),
            _ => CaptureWord::Waiting,
        };
        let (reason, alarm, slot) = match status {
            Some(status) => (status.reason, status.alarm, status.slot),
            None => (None, None, None),
        };
        Ok(Self {
            name: row.name,
            state: word,
            reason: state.stopped.or(reason),
            alarm,
            slot: Some(state.slot),
            publication: Some(state.publication),
            position: state.position,
            stored_at: Some(row.stored_at),
            tables: state.tables.into_iter().map(Into::into).collect(),
            slot_state: slot.map(Into::into),
        })
    }

    /// A capture that this process declares and that could not begin yet.
    pub fn not_begun(name: &str, status: CaptureStatus) -> Self {
        Self {
            name: name.to_owned(),
            state: status.activity.into(),
            reason: status.reason,
            alarm: status.alarm,
            slot: None,
            publication: None,
            position: None,
            stored_at: None,
            tables: Vec::new(),
            slot_state: None,
        }
    }
}

impl From<CaptureActivity> for CaptureWord {
    fn from(activity: CaptureActivity) -> Self {
        match activity {
            CaptureActivity::Running => Self::Running,
            CaptureActivity::Failing => Self::Failing,
            CaptureActivity::Waiting | CaptureActivity::Stopped => Self::Waiting,
        }
    }
}

//! What a capture is wired to.

use super::catalog::TableName;
use super::catalog::server::ServerIdentity;
use super::record::{RecordEnvelope, Recorder};
use super::slot_watch::SlotWatch;
use super::{CaptureDatabase, CaptureError, ColumnRules};
use crate::batch::BatchAccumulator;
use crate::config::captures::{CaptureEnvelope, CaptureSettings};
use crate::event::budget::Budget;
use crate::event::{Fence, Lane};
use crate::maintenance::leader::Leadership;
use crate::metrics::Metrics;
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::Store;
use crate::store::leases::Lease;
use crate::supervision::{Lifecycle, Mailbox};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What is captured.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) tables: Vec<(TableName, ColumnRules)>,
    pub(super) slot: String,
    pub(super) publication: String,
    /// Whether the rows that are there already are read first.
    pub(super) snapshot: bool,
}

/// What a capture is wired to.
#[derive(Clone)]
pub(super) struct CaptureParams {
    pub(super) settings: CaptureSettings,
    pub(super) wanted: Wanted,
    pub(super) database: CaptureDatabase,
    /// Bytes of a record, and levels of nesting in it, at most.
    pub(super) bounds: (usize, usize),
    pub(super) store: Arc<dyn Store>,
    pub(super) leadership: Leadership,
    /// The writer that keeps the order of the changes.
    pub(super) lane: Mailbox<BatchAccumulator>,
    /// Takes what is no event.
    pub(super) retry: Mailbox<RetrySupervisor>,
    pub(super) budget: Budget,
    pub(super) slot_watch: SlotWatch,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
}

/// The rules of a table's columns.
pub(super) fn rules(settings: &CaptureSettings, table: &str) -> ColumnRules {
    let columns = &settings.columns;
    ColumnRules {
        exclude: CaptureSettings::of_table(&columns.exclude, table),
        mask: CaptureSettings::of_table(&columns.mask, table),
    }
}

impl CaptureParams {
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// The prefix of the watermarks in the log.
    pub(super) fn prefix(&self) -> String {
        format!("eclusa.{}", self.name())
    }

    /// The lane of the changes that are captured under `lease`.
    pub(super) fn lane_under(&self, lease: &Lease) -> Lane {
        let hash: [u8; 32] = Sha256::digest(format!("capture {}", self.name())).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Lane {
            key: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            // Rows of a snapshot that are written late would hide newer changes.
            fence: Some(Fence {
                lease: lease.name.clone(),
                token: lease.token,
            }),
        }
    }

    /// The rules of a table's columns.
    pub(super) fn rules(&self, table: &str) -> ColumnRules {
        rules(&self.settings, table)
    }

    pub(super) fn recorder(&self, identity: &ServerIdentity) -> Result<Recorder, CaptureError> {
        Ok(Recorder {
            capture: Arc::from(self.name()),
            system: identity.system,
            timelines: identity.timelines.clone(),
            database: self.database.name()?.to_owned(),
            envelope: match self.settings.envelope {
                CaptureEnvelope::Flat => RecordEnvelope::Flat,
                CaptureEnvelope::Debezium => RecordEnvelope::Debezium,
            },
            max_bytes: Some(self.bounds.0),
            max_depth: self.bounds.1,
        })
    }
}

//! What captures have done, and what they are asked to do.
//!
//! The state of a capture is a document that only captures read. Each change appends a row behind the newest one, which must
//! be the one that the writer knows: the process that runs a capture and those that command it tell each other by it.

use super::StoreError;
use async_trait::async_trait;
use chrono::{DateTime, Utc};

/// The newest row of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRow {
    pub name: String,
    /// Counts the rows of the capture.
    pub n: i64,
    /// Of the lease under which it was written.
    pub token: i64,
    /// As JSON.
    pub state: String,
    pub stored_at: DateTime<Utc>,
}

/// Keeps the states of captures.
#[async_trait]
pub trait CaptureStore: Send + Sync {
    /// The newest row of each capture, by name.
    async fn captures(&self) -> Result<Vec<CaptureRow>, StoreError>;

    /// The newest row of one capture.
    async fn capture(&self, name: &str) -> Result<Option<CaptureRow>, StoreError>;

    /// Appends a row behind `row.n - 1`, which must be the newest one, of the same or a lower token. Whether it was;
    /// otherwise nothing is written. `row.stored_at` is set by the store.
    async fn store_capture(&self, row: &CaptureRow) -> Result<bool, StoreError>;
}

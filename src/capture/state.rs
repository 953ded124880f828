//! What a capture has done, and what it is asked to do, as the store keeps it.

use super::Lsn;
use crate::event::item;
use crate::store::captures::CaptureRow;
use crate::store::{CaptureStore, ErrorKind, StoreError};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a capture is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaptureOrder {
    /// To capture.
    #[default]
    Run,
    /// To begin again with a new slot and a new snapshot of all tables.
    Renew,
    /// To drop its slot and its publication, and to stop.
    Drop,
}

/// Keys of rows to be read again that are kept track of, at most: they are part of each state that is stored.
const MOST_AGAIN: usize = 1_000;

/// The snapshot of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSnapshot {
    /// Part of the ids of its rows.
    pub id: Uuid,
    /// The texts of the key's values in the last row that is durable here; absent before the first one.
    pub after: Option<Vec<String>>,
    /// The texts of keys whose rows are to be read again: those of rows that moved there by updates which lack values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<Vec<String>>,
    /// The number of the table's entry in the publication. Another one says that changes may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u32>,
    /// Rows that were read, and read again.
    pub rows: u64,
    pub requested_at: DateTime<Utc>,
    pub done_at: Option<DateTime<Utc>>,
}

impl TableSnapshot {
    /// One that begins.
    pub fn requested() -> Self {
        Self {
            id: Uuid::new_v4(),
            after: None,
            again: Vec::new(),
            entry: None,
            rows: 0,
            requested_at: item::now(),
            done_at: None,
        }
    }

    /// Has the row of a key read again. `false` if there are too many.
    pub fn read_again(&mut self, key: Vec<String>) -> bool {
        if self.again.contains(&key) {
            return true;
        }
        let has_room = self.again.len() < MOST_AGAIN;
        if has_room {
            self.again.push(key);
        }
        has_room
    }

    /// One that is not wanted.
    pub fn left_out() -> Self {
        Self {
            done_at: Some(item::now()),
            ..Self::requested()
        }
    }
}

/// The state of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CaptureState {
    /// `system_identifier` of the captured server, as text: it exceeds what a JSON number keeps.
    pub system: String,
    /// The timeline of `position`.
    pub timeline: u32,
    /// Empty when it was dropped by command.
    pub slot: String,
    pub publication: String,
    /// Everything that was committed before this place is durable here. Absent until there is a slot.
    pub position: Option<String>,
    /// By the table's name with its schema.
    pub tables: BTreeMap<String, TableSnapshot>,
    pub order: CaptureOrder,
    /// Why it has stopped, until it is told to begin again.
    pub stopped: Option<String>,
}

impl CaptureState {
    /// The position as a place in the log.
    pub fn lsn(&self) -> Option<Lsn> {
        self.position.as_ref().and_then(|text| text.parse().ok())
    }

    /// The state in a row of the store.
    ///
    /// # Errors
    /// Another release has written what this one cannot read.
    pub fn read(row: &CaptureRow) -> Result<Self, StoreError> {
        serde_json::from_str(&row.state).map_err(|error| {
            let message = format!(
                "the state of the capture {} cannot be read: {error}",
                row.name
            );
            StoreError::new(ErrorKind::Operator, message)
        })
    }
}

/// The state of a capture with its place in the store.
#[derive(Debug, Clone)]
pub struct StoredState {
    pub name: String,
    /// Number of its row; 0 if there is none.
    n: i64,
    token: i64,
    pub state: CaptureState,
}

impl StoredState {
    /// Reads the newest one.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(store: &dyn CaptureStore, name: &str) -> Result<Self, StoreError> {
        let name = name.to_owned();
        let row = store.capture(&name).await?;
        let (n, token) = row.as_ref().map_or((0, 0), |row| (row.n, row.token));
        let state = row.as_ref().map(CaptureState::read).transpose()?;
        Ok(Self {
            name,
            n,
            token,
            state: state.unwrap_or_default(),
        })
    }

    /// Stores a state behind this one, under the token of a lease. Whether this one was still the newest.
    ///
    /// # Errors
    /// The store's.
    pub async fn store(
        &mut self,
        store: &dyn CaptureStore,
        token: i64,
        state: CaptureState,
    ) -> Result<bool, StoreError> {
        let text = serde_json::to_string(&state)
            .map_err(|error| StoreError::new(ErrorKind::Operator, error.to_string()))?;
        let row = CaptureRow {
            name: self.name.clone(),
            n: self.n.saturating_add(1),
            token,
            state: text,
            stored_at: item::now(),
        };
        let stored = store.store_capture(&row).await?;
        if stored {
            (self.n, self.token, self.state) = (row.n, token, state);
        }
        Ok(stored)
    }

    /// Whether a process has taken the capture over whose lease is newer.
    pub fn is_newer_than(&self, token: i64) -> bool {
        self.token > token
    }

    /// Whether this is another row than that one.
    pub fn differs(&self, other: &Self) -> bool {
        (self.n, self.token) != (other.n, other.token)
    }

    /// Whether it was ever begun.
    pub fn exists(&self) -> bool {
        self.n > 0
    }
}

/// Changes the newest state of a capture as `change` says, which returns whether there is something to change.
/// Whether it was changed.
///
/// # Errors
/// The store's.
pub async fn command(
    store: &dyn CaptureStore,
    name: &str,
    change: impl Fn(&mut CaptureState) -> bool,
) -> Result<Option<bool>, StoreError> {
    loop {
        let mut stored = StoredState::load(store, name).await?;
        if !stored.exists() {
            return Ok(None);
        }
        let mut state = stored.state.clone();
        if !change(&mut state) {
            return Ok(Some(false));
        }
        let token = stored.token;
        // Otherwise the capture has stored its progress meanwhile.
        if stored.store(store, token, state).await? {
            return Ok(Some(true));
        }
    }
}

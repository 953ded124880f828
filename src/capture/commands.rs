//! Commands to captures. They change the state, which the process that captures reads each second.

use super::state::{CaptureOrder, CaptureState, TableSnapshot, command};
use crate::config::captures::CaptureSettings;
use crate::store::{CaptureStore, StoreError};
use std::cell::RefCell;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Done,
    /// There is no such capture.
    Unknown,
    /// The capture has no such table.
    UnknownTable(String),
}

/// The slots that captures have which are not declared any more: each with the capture's name.
///
/// # Errors
/// The store's.
pub async fn left_behind(
    store: &dyn CaptureStore,
    declared: &[CaptureSettings],
) -> Result<Vec<(String, String)>, StoreError> {
    let mut left = Vec::new();
    for row in store.captures().await? {
        let slot = CaptureState::read(&row)?.slot;
        if !slot.is_empty() && !declared.iter().any(|one| one.name == row.name) {
            left.push((row.name, slot));
        }
    }
    Ok(left)
}

/// Asks for a new snapshot of these tables, or of all. A capture that has stopped is to begin again, with all tables.
///
/// # Errors
/// The store's.
pub async fn resnapshot(
    store: &dyn CaptureStore,
    name: &str,
    tables: &[String],
) -> Result<Asked, StoreError> {
    let unknown = RefCell::new(None);
    let change = |state: &mut CaptureState| {
        let missing = tables
            .iter()
            .find(|table| !state.tables.contains_key(*table));
        unknown.replace(missing.cloned());
        if missing.is_some() {
            return false;
        }
        if state.stopped.is_some() || state.order != CaptureOrder::Run {
            state.order = CaptureOrder::Renew;
            return true;
        }
        for (table, snapshot) in &mut state.tables {
            if tables.is_empty() || tables.contains(table) {
                *snapshot = TableSnapshot::requested();
            }
        }
        true
    };
    let done = command(store, name, change).await?;
    Ok(match (done, unknown.into_inner()) {
        (None, _) => Asked::Unknown,
        (_, Some(table)) => Asked::UnknownTable(table),
        _ => Asked::Done,
    })
}

/// Asks a capture to drop its slot and its publication, and to stop.
///
/// # Errors
/// The store's.
pub async fn drop_slot(store: &dyn CaptureStore, name: &str) -> Result<Asked, StoreError> {
    let change = |state: &mut CaptureState| {
        let is_new = state.order != CaptureOrder::Drop;
        state.order = CaptureOrder::Drop;
        is_new
    };
    Ok(match command(store, name, change).await? {
        None => Asked::Unknown,
        Some(_) => Asked::Done,
    })
}

//! From what the database says it inserted to what each row of a batch is told.

use super::RowOutcome;
use super::content::conflicts;
use crate::event::{Event, StoredEvent};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Outcome of each row, given the ids that were new. Of equal ids within the batch the first row
/// is the stored one.
pub(super) fn of_rows(rows: &[Event], mut new: HashSet<Uuid>) -> Vec<RowOutcome> {
    if new.len() == rows.len() {
        return vec![RowOutcome::Stored; rows.len()];
    }
    rows.iter()
        .map(|event| {
            if new.remove(&event.event_id) {
                RowOutcome::Stored
            } else {
                RowOutcome::Duplicate { conflicting: false }
            }
        })
        .collect()
}

/// The ids of the rows that were duplicates, each once.
pub(super) fn duplicates(rows: &[Event], outcomes: &[RowOutcome]) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = rows
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, RowOutcome::Duplicate { .. }))
        .map(|(event, _)| event.event_id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Marks the duplicates that say something else than what the log has.
pub(super) fn mark_conflicts(
    rows: &[Event],
    outcomes: &mut [RowOutcome],
    stored: impl IntoIterator<Item = StoredEvent>,
) {
    let stored: HashMap<Uuid, StoredEvent> = stored
        .into_iter()
        .map(|event| (event.event_id, event))
        .collect();
    for (event, outcome) in rows.iter().zip(outcomes) {
        if let (RowOutcome::Duplicate { conflicting }, Some(earlier)) =
            (outcome, stored.get(&event.event_id))
        {
            *conflicting = conflicts(event, earlier);
        }
    }
}

//! Reactions with what they react to, how far they are, and how many runs they have.

use crate::store::commit_log::{Position, TypePatterns, Unnumbered};
use crate::store::followers::{FollowerState, LaneSpec};
use crate::store::reactions::ReactionRecord;
use crate::store::runs::RunCounts;
use crate::store::{Store, StoreError};
use std::collections::HashMap;

/// A reaction as operators see it.
#[derive(Debug, Clone)]
pub struct ReactionOverview {
    pub record: ReactionRecord,
    /// What it reacts to from now on.
    pub types: TypePatterns,
    pub spec: Option<LaneSpec>,
    /// That of the lane that needs attention most.
    pub state: FollowerState,
    /// Why that lane is broken or gapped.
    pub reason: Option<String>,
    /// Events behind the position of its last lane, whatever their type; an estimate if there are many.
    pub behind: u64,
    /// Seconds for which the oldest of them has been in the log.
    pub behind_seconds: f64,
    pub counts: RunCounts,
}

/// All reactions, by name.
///
/// # Errors
/// The store's.
pub async fn overviews(store: &dyn Store) -> Result<Vec<ReactionOverview>, StoreError> {
    let reactions = store.reactions().await?;
    all(store, reactions).await
}

/// One reaction.
///
/// # Errors
/// The store's.
pub async fn overview(
    store: &dyn Store,
    name: &str,
) -> Result<Option<ReactionOverview>, StoreError> {
    let reaction = store.reaction(name).await?;
    let overviews = all(store, reaction.into_iter().collect()).await?;
    Ok(overviews.into_iter().next())
}

async fn all(
    store: &dyn Store,
    reactions: Vec<ReactionRecord>,
) -> Result<Vec<ReactionOverview>, StoreError> {
    if reactions.is_empty() {
        return Ok(Vec::new());
    }
    let counts = store.run_counts().await?;
    let counts: HashMap<i32, RunCounts> = counts
        .into_iter()
        .map(|counts| (counts.reaction, counts))
        .collect();
    let unnumbered = store.unnumbered().await?;
    let mut overviews = Vec::new();
    for record in reactions {
        let none = RunCounts {
            reaction: record.id,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            queued: 0,
        };
        let counts = counts.get(&record.id).copied().unwrap_or(none);
        overviews.push(one(store, record, counts, unnumbered).await?);
    }
    Ok(overviews)
}

async fn one(
    store: &dyn Store,
    record: ReactionRecord,
    counts: RunCounts,
    unnumbered: Unnumbered,
) -> Result<ReactionOverview, StoreError> {
    let (types, spec) = match store.held_at(&record.name, Position::MAX).await? {
        Some(held) => (held.types, Some(held.spec)),
        None => (TypePatterns::default(), None),
    };
    let low = record.lanes.iter().map(|lane| lane.position).min();
    let (events, seconds) = match low {
        Some(low) => store.backlog(low).await?,
        None => (0, 0.0),
    };
    let (state, reason) = state(&record);
    Ok(ReactionOverview {
        types,
        spec,
        state,
        reason,
        behind: events.saturating_add(unnumbered.events),
        behind_seconds: seconds.max(unnumbered.seconds),
        counts,
        record,
    })
}

/// The state that needs attention most, and its reason.
fn state(record: &ReactionRecord) -> (FollowerState, Option<String>) {
    for state in [FollowerState::Broken, FollowerState::Gapped] {
        if let Some(lane) = record.lanes.iter().find(|lane| lane.state == state) {
            return (state, lane.reason.clone());
        }
    }
    match record.paused {
        true => (FollowerState::Paused, None),
        false => (FollowerState::Running, None),
    }
}

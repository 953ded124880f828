//! The runs of an event.

use super::undecided::Undecided;
use super::{RunId, undecided_run};
use crate::store::commit_log::Position;
use crate::store::reactions::ReactionRecord;
use crate::store::runs::RunRecord;
use crate::store::{Store, StoreError};
use uuid::Uuid;

/// The runs of an event with the names of their reactions, by name; `None` if neither the log nor a reaction has the
/// event.
///
/// # Errors
/// The store's.
pub async fn of_event(
    store: &dyn Store,
    event_id: Uuid,
) -> Result<Option<Vec<(String, RunRecord)>>, StoreError> {
    let reactions = store.reactions().await?;
    of_event_in(store, &reactions, event_id).await
}

/// One run; `None` if there is none.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store, id: &RunId) -> Result<Option<RunRecord>, StoreError> {
    let Some(reaction) = store.reaction(&id.reaction).await? else {
        return Ok(None);
    };
    let runs = of_event_in(store, &[reaction], id.event_id).await?;
    Ok(runs.into_iter().flatten().next().map(|(_, run)| run))
}

/// The positions of lanes are read before the rows: what is decided in between has a row.
async fn of_event_in(
    store: &dyn Store,
    reactions: &[ReactionRecord],
    event_id: Uuid,
) -> Result<Option<Vec<(String, RunRecord)>>, StoreError> {
    let event = store.get(event_id).await?;
    // An event that has no number yet gets one behind all others.
    let position = match &event {
        Some(_) => store.position_of(event_id).await?.unwrap_or(Position::MAX),
        None => Position::START,
    };
    let rows = store.runs_of(event_id).await?;
    if event.is_none() && rows.is_empty() {
        return Ok(None);
    }
    let mut runs = Vec::new();
    for reaction in reactions {
        let mut run = rows.iter().find(|run| run.reaction == reaction.id).cloned();
        if let (None, Some(event)) = (&run, &event)
            && Undecided::new(store, reaction).has(event, position).await?
        {
            run = Some(undecided_run(reaction.id, position, event_id));
        }
        runs.extend(run.map(|run| (reaction.name.clone(), run)));
    }
    Ok(Some(runs))
}

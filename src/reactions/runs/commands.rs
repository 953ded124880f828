//! Cancelling a run.

use super::RunId;
use super::lookup::find;
use crate::store::commit_log::Position;
use crate::store::followers::Commanded;
use crate::store::runs::CancelledRun;
use crate::store::{Store, StoreError};

/// The reason of a run that was cancelled.
const REASON: &str = "cancelled by command";

/// Cancels a run that was not started, or that waits for its next attempt.
///
/// # Errors
/// The store's.
pub async fn cancel(store: &dyn Store, id: &RunId) -> Result<Commanded, StoreError> {
    let Some(run) = find(store, id).await? else {
        return Ok(Commanded::Unknown);
    };
    let mut position = run.position;
    if position == Position::MAX {
        // Its event has no number yet.
        store.number_commits().await?;
        match store.position_of(id.event_id).await? {
            Some(numbered) => position = numbered,
            None => return Ok(Commanded::Unknown),
        }
    }
    let cancelled = store
        .cancel_run(run.reaction, position, id.event_id, REASON)
        .await?;
    Ok(match cancelled {
        CancelledRun::Done => Commanded::Done,
        CancelledRun::Running => Commanded::Refused(format!(
            "an attempt of run {id} is under way; cancel it when the attempt has failed"
        )),
        CancelledRun::Ended(state) => {
            Commanded::Refused(format!("run {id} has ended: it is {}", state.as_str()))
        }
    })
}

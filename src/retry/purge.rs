//! Deleting dead letters for good.

use crate::store::dead_letters::LetterFilter;
use crate::store::{DeadLetterStore, StoreError};

/// Letters deleted in one transaction, so that nobody else waits long.
const SLICE: u64 = 500;

/// Deletes the oldest letters that pass the filter, at most `limit`, and says how many.
/// `progress` hears the number so far.
///
/// # Errors
/// The store's; what was deleted before stays deleted.
pub async fn purge(
    letters: &dyn DeadLetterStore,
    filter: &LetterFilter,
    limit: u64,
    mut progress: impl FnMut(u64),
) -> Result<u64, StoreError> {
    let mut purged = 0;
    while purged < limit {
        let slice = (limit - purged).min(SLICE);
        let gone = letters
            .purge_letters(filter, usize::try_from(slice).unwrap_or(usize::MAX))
            .await?;
        purged += gone;
        progress(purged);
        if gone < slice {
            break;
        }
    }
    Ok(purged)
}

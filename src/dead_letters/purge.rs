//! Deleting dead letters for good.

use crate::store::dead_letters::DeadLetterFilter;
use crate::store::{DeadLetterStore, StoreError};

/// Dead letters deleted in one transaction, which bounds how long others wait.
const SLICE: u64 = 500;

/// Deletes the oldest dead letters that match the filter, at most `limit`, and returns their number.
/// `progress` is called with the number so far.
///
/// # Errors
/// The store's; what was deleted before stays deleted.
pub async fn purge(
    letters: &dyn DeadLetterStore,
    filter: &DeadLetterFilter,
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

//! What the responses to commands have in common.

use super::HttpState;
use super::problem::Problem;
use crate::store::StoreError;
use crate::store::followers::Commanded;

/// Checks that a command was carried out, and tells the followers of this process.
pub(super) fn obeyed(
    state: &HttpState,
    done: Result<Commanded, StoreError>,
    unknown: impl FnOnce() -> Problem,
) -> Result<(), Problem> {
    match done.map_err(|error| not_done(&error))? {
        Commanded::Done => {
            state.followers.watch.command();
            Ok(())
        }
        Commanded::Unknown => Err(unknown()),
        Commanded::Refused(reason) => Err(Problem::conflict(reason)),
    }
}

/// A failure of the store while a command was carried out.
pub(super) fn not_done(error: &StoreError) -> Problem {
    tracing::error!(kind = error.kind().as_str(), %error, "command failed");
    Problem::unavailable("the store cannot carry out the command now; try again")
}

//! What the writer's thread can be asked to do.

use super::connection::SqliteFailure;
use crate::store::{ErrorKind, StoreError};
use diesel::{Connection, SqliteConnection};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// Where the answer to a command arrives.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

/// The answer to a command that was carried out, held back until it is known whether the
/// transaction around it was committed.
pub(super) type CommandReply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

type Work = dyn FnOnce(Result<&mut SqliteConnection, StoreError>) -> CommandReply + Send;

/// One thing to do within the writer's transaction.
pub(super) struct StoreCommand {
    /// How many rows it is about, for the bound on a transaction.
    pub(super) weight: usize,
    work: Box<Work>,
}

impl StoreCommand {
    /// A command, and where its answer arrives. Its work is done under a savepoint: if it fails or
    /// panics, nothing of it remains, and what the transaction holds of other commands stays.
    pub(super) fn new<T: Send + 'static>(
        weight: usize,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure> + Send + 'static,
    ) -> (Self, Answer<T>) {
        let (reply, answer) = oneshot::channel();
        let work = move |connection: Result<&mut SqliteConnection, StoreError>| -> CommandReply {
            let result = connection.and_then(|connection| savepoint(connection, work));
            Box::new(move |commit| {
                // The failure of the command itself says more than that of the commit.
                let result = result.and_then(|value| commit.map(|()| value));
                // The caller may have gone; what was committed stays committed.
                drop(reply.send(result));
            })
        };
        let work = Box::new(work);
        (Self { weight, work }, answer)
    }

    pub(super) fn run(self, connection: &mut SqliteConnection) -> CommandReply {
        (self.work)(Ok(connection))
    }

    /// Answers without having done it.
    pub(super) fn refuse(self, error: StoreError) {
        (self.work)(Err(error))(Ok(()));
    }
}

fn savepoint<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure>,
) -> Result<T, StoreError> {
    let result = connection.transaction(|connection| {
        catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
            let message = "a command of the SQLite writer panicked; it was rolled back";
            Err(StoreError::new(ErrorKind::Transient, message).into())
        })
    });
    result.map_err(|SqliteFailure(error)| error)
}

//! What the writer's thread can be asked to do.

use super::connection::Failure;
use super::{leases, letters_write, retention, write};
use crate::event::Rows;
use crate::store::dead_letters::{DeadLetter, LetterFilter, Replayed};
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::Slice;
use crate::store::{ErrorKind, RowOutcome, StoreError};
use diesel::{Connection, SqliteConnection};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the one who asked waits.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The answer to a command that was carried out, held back until it is known whether the
/// transaction around it was committed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One thing to do within the writer's transaction. To add one: a variant, a line in each of the
/// three methods.
pub(super) enum Command {
    /// [`EventStore::write`](crate::store::EventStore::write).
    WriteEvents {
        /// What to write.
        rows: Rows,
        /// Who waits.
        reply: Reply<Vec<RowOutcome>>,
    },
    /// [`DeadLetterStore::bury`](crate::store::DeadLetterStore::bury).
    Bury {
        /// What to keep.
        letters: Vec<DeadLetter>,
        /// Who waits.
        reply: Reply<u64>,
    },
    /// [`DeadLetterStore::mark_replayed`](crate::store::DeadLetterStore::mark_replayed).
    MarkReplayed {
        /// Which, and as they were read.
        letters: Vec<Replayed>,
        /// Who waits.
        reply: Reply<()>,
    },
    /// [`DeadLetterStore::purge_letters`](crate::store::DeadLetterStore::purge_letters).
    PurgeLetters {
        /// Which.
        filter: LetterFilter,
        /// Most of them.
        limit: usize,
        /// Who waits.
        reply: Reply<u64>,
    },
    /// [`LeaseStore::acquire`](crate::store::LeaseStore::acquire).
    AcquireLease {
        /// Which.
        name: String,
        /// Who wants it.
        holder: String,
        /// For how long.
        ttl: Duration,
        /// Who waits.
        reply: Reply<Option<Lease>>,
    },
    /// [`LeaseStore::renew`](crate::store::LeaseStore::renew).
    RenewLease {
        /// Which.
        lease: Lease,
        /// For how long from now.
        ttl: Duration,
        /// Who waits.
        reply: Reply<bool>,
    },
    /// [`LeaseStore::release`](crate::store::LeaseStore::release).
    ReleaseLease {
        /// Which.
        lease: Lease,
        /// Who waits.
        reply: Reply<()>,
    },
    /// [`LeaseStore::void_leases`](crate::store::LeaseStore::void_leases).
    VoidLeases {
        /// Who waits.
        reply: Reply<()>,
    },
    /// [`RetentionStore::trim`](crate::store::RetentionStore::trim).
    Trim {
        /// Under which lease.
        lease: Lease,
        /// Days to keep.
        keep: u32,
        /// Behind which `id`.
        after: i64,
        /// Rows to look at.
        limit: u32,
        /// Who waits.
        reply: Reply<Fenced<Slice>>,
    },
    /// Crashes, to show that the thread outlives it.
    #[cfg(test)]
    Panic {
        /// Who waits.
        reply: Reply<()>,
    },
}

impl Command {
    /// How many rows it is about, for the bound on a transaction.
    pub(super) fn weight(&self) -> usize {
        match self {
            Command::WriteEvents { rows, .. } => rows.len(),
            Command::Bury { letters, .. } => letters.len(),
            Command::MarkReplayed { letters, .. } => letters.len(),
            Command::PurgeLetters { limit, .. } => *limit,
            Command::Trim { limit, .. } => *limit as usize,
            Command::AcquireLease { .. }
            | Command::RenewLease { .. }
            | Command::ReleaseLease { .. }
            | Command::VoidLeases { .. } => 1,
            #[cfg(test)]
            Command::Panic { .. } => 1,
        }
    }

    /// Does it, under a savepoint: if it fails or panics, nothing of it remains, and what the
    /// transaction holds of other commands stays.
    pub(super) fn run(self, connection: &mut SqliteConnection) -> Answer {
        match self {
            Command::WriteEvents { rows, reply } => {
                let result = savepoint(connection, |connection| write::insert(connection, &rows));
                answer(reply, result)
            }
            Command::Bury { letters, reply } => {
                let result = savepoint(connection, |connection| {
                    letters_write::bury(connection, letters)
                });
                answer(reply, result)
            }
            Command::MarkReplayed { letters, reply } => {
                let result = savepoint(connection, |connection| {
                    letters_write::mark_replayed(connection, &letters)
                });
                answer(reply, result)
            }
            Command::PurgeLetters {
                filter,
                limit,
                reply,
            } => {
                let result = savepoint(connection, |connection| {
                    letters_write::purge(connection, &filter, limit)
                });
                answer(reply, result)
            }
            Command::AcquireLease {
                name,
                holder,
                ttl,
                reply,
            } => {
                let result = savepoint(connection, |connection| {
                    leases::acquire(connection, &name, &holder, ttl)
                });
                answer(reply, result)
            }
            Command::RenewLease { lease, ttl, reply } => {
                let result = savepoint(connection, |c| leases::renew(c, &lease, ttl));
                answer(reply, result)
            }
            Command::ReleaseLease { lease, reply } => {
                let result = savepoint(connection, |c| leases::release(c, &lease));
                answer(reply, result)
            }
            Command::VoidLeases { reply } => answer(reply, savepoint(connection, leases::void)),
            Command::Trim {
                lease,
                keep,
                after,
                limit,
                reply,
            } => {
                let result = savepoint(connection, |connection| {
                    retention::trim(connection, &lease, keep, after, limit)
                });
                answer(reply, result)
            }
            #[cfg(test)]
            Command::Panic { reply } => {
                let result = savepoint(connection, |_| panic!("asked to"));
                answer(reply, result)
            }
        }
    }

    /// Answers without having done it.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Command::WriteEvents { reply, .. } => answer(reply, Ok(Vec::new()))(Err(error)),
            Command::Bury { reply, .. } | Command::PurgeLetters { reply, .. } => {
                answer(reply, Ok(0))(Err(error))
            }
            Command::MarkReplayed { reply, .. }
            | Command::ReleaseLease { reply, .. }
            | Command::VoidLeases { reply } => answer(reply, Ok(()))(Err(error)),
            Command::AcquireLease { reply, .. } => answer(reply, Ok(None))(Err(error)),
            Command::RenewLease { reply, .. } => answer(reply, Ok(false))(Err(error)),
            Command::Trim { reply, .. } => answer(reply, Ok(Fenced::Lost))(Err(error)),
            #[cfg(test)]
            Command::Panic { reply } => answer(reply, Ok(()))(Err(error)),
        }
    }
}

fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Answer {
    Box::new(move |commit| {
        // The failure of the command itself says more than that of the commit.
        let result = result.and_then(|value| commit.map(|()| value));
        // Whoever asked may have gone; what was committed stays committed.
        drop(reply.send(result));
    })
}

fn savepoint<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, Failure>,
) -> Result<T, StoreError> {
    let result = connection.transaction(|connection| {
        catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
            let message = "a command of the SQLite writer panicked; it was rolled back";
            Err(StoreError::new(ErrorKind::Transient, message).into())
        })
    });
    result.map_err(|Failure(error)| error)
}

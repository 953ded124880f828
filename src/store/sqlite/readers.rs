//! Connections that answer queries, each used by one thread at a time.

use super::connection::{Purpose, SqliteFailure, open};
use crate::store::{ErrorKind, StoreError};
use diesel::SqliteConnection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Lends connections to queries, which run on threads where they may block.
pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
}

impl Readers {
    /// At most `count` queries at a time, and one more, so that counting the dead letters for
    /// `/metrics` leaves `count` to others; the connections are made when first needed.
    pub(super) fn new(path: PathBuf, count: usize) -> Self {
        Self {
            path,
            permits: Arc::new(Semaphore::new(count.max(1) + 1)),
            idle: Arc::default(),
        }
    }

    /// Runs a query. A connection on which it panics is closed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(StoreError::new(ErrorKind::Outage, "the store is closed"));
        };
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let run = tokio::task::spawn_blocking(move || {
            let lent = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match lent {
                Some(connection) => connection,
                None => open(&path, Purpose::Read)?,
            };
            let result = query(&mut connection);
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            drop(permit);
            result.map_err(|SqliteFailure(error)| error)
        });
        run.await.unwrap_or_else(|error| {
            let message = "a query was broken off";
            Err(StoreError::new(ErrorKind::Transient, message).with_source(error))
        })
    }
}

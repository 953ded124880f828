//! Transactions on the connections of diesel.

use diesel::QueryResult;
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

/// For a transaction that others wait for: a transaction of an application may have a lock that it needs.
pub(super) const PATIENCE: &str = "SET LOCAL lock_timeout = '1s'";

/// Commits what the work has done, or rolls it back after an error.
pub(super) async fn in_transaction<T>(
    connection: &mut AsyncPgConnection,
    work: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    AnsiTransactionManager::begin_transaction(connection).await?;
    let done = work(connection).await;
    match &done {
        Ok(_) => AnsiTransactionManager::commit_transaction(connection).await?,
        Err(_) => AnsiTransactionManager::rollback_transaction(connection).await?,
    }
    done
}

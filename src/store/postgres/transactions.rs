//! Transactions on the connections of diesel.

use diesel::{QueryResult, sql_query};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager};
use std::time::Duration;

/// How long a command that others wait for waits for a lock: a transaction of an application may have it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

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

/// Has the open transaction wait for each of its locks so long at most.
pub(super) async fn limit_locks(
    connection: &mut AsyncPgConnection,
    limit: Duration,
) -> QueryResult<()> {
    let set = format!("SET LOCAL lock_timeout = {}", limit.as_millis().max(1));
    sql_query(set).execute(connection).await?;
    Ok(())
}

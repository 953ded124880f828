//! Taking a marked partition out of the log, in a session that cannot do it too late.
//!
//! The detaching is no transaction, so it cannot check the lease. A process that stood still between
//! the mark and the detaching would take a day out whose mark another leader has taken away, and
//! nobody would know whose it is. So the session that detaches holds a lock from its last look at
//! the mark to its end, and a mark is taken away only when no session has that lock. Idle for
//! [`IDLE`], because its process stands still, the session is ended by PostgreSQL.

use super::retention::MARK;
use crate::store::{ErrorKind, StoreError};
use tokio_postgres::{Client, Transaction};

/// Key of the lock: shared by those that detach, and alone for the one that takes a mark away.
const LOCK: i64 = 0x6563_6c75_7361_0003;

/// How long a session with the lock may be idle.
const IDLE: &str = "5s";

const IS_MARKED: &str = "\
    SELECT coalesce(obj_description(to_regclass($1), 'pg_class') = $2, false)";

/// Detaches the partition if it is still marked; `false` if not. Waits alone for those that read it.
pub(super) async fn detach(client: &Client, name: &str) -> Result<bool, StoreError> {
    let lock =
        format!("SET idle_session_timeout = '{IDLE}'; SELECT pg_advisory_lock_shared({LOCK})");
    client.batch_execute(&lock).await?;
    let detached = detach_if_marked(client, name).await;
    // Given up meanwhile, it is the end of the idle session that unlocks.
    let unlock = format!("SELECT pg_advisory_unlock_shared({LOCK}); RESET idle_session_timeout");
    let unlocked = client.batch_execute(&unlock).await;
    let detached = detached?;
    unlocked?;
    Ok(detached)
}

async fn detach_if_marked(client: &Client, name: &str) -> Result<bool, StoreError> {
    let marked: bool = client
        .query_one(IS_MARKED, &[&name, &MARK])
        .await?
        .try_get(0)?;
    if marked {
        let sql = format!("ALTER TABLE user_interactions DETACH PARTITION {name} CONCURRENTLY");
        client.batch_execute(&sql).await?;
    }
    Ok(marked)
}

/// Lets nobody detach until the transaction ends.
///
/// # Errors
/// `Transient` while somebody does.
pub(super) async fn keep_out(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let sql = "SELECT pg_try_advisory_xact_lock($1)";
    if transaction.query_one(sql, &[&LOCK]).await?.try_get(0)? {
        return Ok(());
    }
    let message = "a day is to be kept after all, and another process may still be detaching it";
    Err(StoreError::new(ErrorKind::Transient, message))
}

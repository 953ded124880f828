//! Leases: what only one process may do at a time, told by the database.
//!
//! A lease has a name, a holder, and an end by the database's clock. Time alone protects nothing: a
//! holder that was paused finds out too late that its time is over. So each holder has a `token`
//! higher than all before it, and every write under a lease checks, in its own transaction, that
//! the token is still the last one ([`Fenced`]). While such a transaction is open no other holder can
//! take the lease.

use super::StoreError;
use async_trait::async_trait;
use std::time::Duration;

/// A lease that was taken. Whether it is held still, only the store can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What may be done by one process only.
    pub name: String,
    /// Higher than that of every holder before.
    pub token: i64,
}

/// The outcome of a write under a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Fenced<T> {
    /// The lease was held until the write was committed.
    Done(T),
    /// Another holder has the lease. Nothing was written.
    Lost,
}

/// Giving leases out and taking them back.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes the lease `name` for `ttl` if it is free, has run out, or is `holder`'s own. In the
    /// last case the earlier lease is lost. `None` while another holder has it.
    async fn acquire(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Extends the lease to `ttl` from now; `false` when it is lost. An expired lease that no other
    /// holder has acquired can still be renewed.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Releases the lease, so that the next holder need not wait for its end. No effect if it is lost.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Who holds it, and it has not run out.
    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Ends all leases of the previous boot, where only the caller can hold one: for the
    /// server that has the embedded mode's file. Does nothing in a database that is shared.
    async fn void_leases(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

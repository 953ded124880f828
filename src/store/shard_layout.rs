//! The layout of the shards of `broker.order = "user"`, and the replicas that run on it.
//!
//! Each replica holds a lease for as long as it may publish to the shards. The layout changes only
//! while there is no lease: first it is marked as draining, which keeps replicas from entering, then
//! the former queues are worked off, then the new layout replaces it.

use super::StoreError;
use crate::event::Shards;
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// How long a replica's lease lasts without renewal.
pub const REPLICA_TTL: Duration = Duration::from_secs(5);

/// A replica and its connection to the broker.
#[derive(Debug, Clone, Copy)]
pub struct Replica {
    /// Unique to the process.
    pub id: Uuid,
    /// Unique to the connection.
    pub connection: Uuid,
}

/// The outcome of [`ShardLayoutStore::enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutEntry {
    /// There is no layout, and `create` was not set.
    Absent,
    /// The replica holds a lease on this layout, which has the number of shards it asked for.
    Entered(Shards),
    /// The queues of this layout must be worked off first. No replica holds a lease on it.
    Draining(Shards),
    /// Other replicas hold leases on this layout, which has another number of shards.
    Occupied {
        shards: Shards,
        /// Number of those replicas.
        replicas: usize,
    },
}

/// Layouts and leases of replicas, by work queue.
#[async_trait]
pub trait ShardLayoutStore: Send + Sync {
    /// Enters `replica` with its number of shards, `None` if it keeps no order. With `create` the
    /// layout is made if there is none.
    async fn enter(
        &self,
        queue: &str,
        wanted: Option<Shards>,
        replica: Replica,
        create: bool,
    ) -> Result<LayoutEntry, StoreError>;

    /// Renews the lease of a connection and counts the replicas; `None` when the lease is gone.
    async fn renew(&self, queue: &str, connection: Uuid) -> Result<Option<usize>, StoreError>;

    /// Connections whose leases have run out.
    async fn expired(&self, queue: &str) -> Result<Vec<Uuid>, StoreError>;

    /// Removes the lease of a connection if it has run out.
    async fn remove_expired(&self, queue: &str, connection: Uuid) -> Result<(), StoreError>;

    /// Replaces a layout whose queues are empty; `None` removes it. Does nothing if that layout is not
    /// draining: another replica has replaced it.
    async fn replace(
        &self,
        queue: &str,
        drained: Shards,
        next: Option<Shards>,
    ) -> Result<(), StoreError>;
}

//! The assignment of shards to a connection with `broker.order = "user"`, which precedes its use. The
//! rest of the order is in `ordering`, which implements [`AssignShards`].

use crate::event::Shards;
use crate::store::StoreError;
use async_trait::async_trait;
use lapin::Connection;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// Why a connection may not be used yet.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// The store failed, which holds the layout of the shards.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Another replica, or a record of another release, stands in the way.
    #[error("{0}")]
    Waiting(String),
}

/// The shards of a link.
pub struct ShardAssignment {
    /// The shards whose queues are consumed.
    pub shards: Shards,
    /// These shards are worked off before another layout replaces them; nothing is published.
    pub draining: bool,
    pub connection: Uuid,
    replicas: AtomicUsize,
}

impl ShardAssignment {
    /// An assignment of a replica that knows of no other.
    pub fn new(shards: Shards, draining: bool, connection: Uuid) -> Self {
        Self {
            shards,
            draining,
            connection,
            replicas: AtomicUsize::new(1),
        }
    }

    /// Number of replicas that share the shards, this one among them.
    pub fn replicas(&self) -> usize {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    /// Records the number of replicas.
    pub fn set_replicas(&self, replicas: usize) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }
}

/// Assigns shards to connections.
#[async_trait]
pub trait AssignShards: Send + Sync {
    /// The shards of a new pair of connections; `None` without an order.
    async fn assign(
        &self,
        consuming: &Connection,
        publishing: &Connection,
    ) -> Result<Option<ShardAssignment>, NotReady>;

    /// Keeps what [`AssignShards::assign`] gave for as long as its connections are in use; returns the
    /// reason when it is no longer in force.
    async fn keep(&self, assignment: Option<&ShardAssignment>, consuming: &Connection) -> String;
}

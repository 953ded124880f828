//! `ShardAssigner`: the layout of the shards in the store, and how another number of shards comes into
//! force.
//!
//! Each connection that publishes to the shards holds a lease in the store and an exclusive queue on
//! the broker, named after the lease. The lease tells the number of replicas. It may outlive its
//! replica, and a replica that cannot reach the store may outlive its lease; so a lease that has run
//! out is removed only when the broker no longer has the exclusive queue, that is, when nothing can be
//! published on that connection.
//!
//! A replica with another number of shards waits until there is no lease. Then it marks the layout as
//! draining, works off the former queues under the former number, and replaces the layout. Several
//! replicas may do so at once, and after a crash the next start continues.

use super::consumer_lock::{ConsumerLock, is_reply, look, look_until};
use crate::broker::shard_assignment::{AssignShards, NotReady, ShardAssignment};
use crate::broker::topology::Topology;
use crate::event::Shards;
use crate::store::ShardLayoutStore;
use crate::store::shard_layout::{LayoutEntry, Replica};
use crate::supervision::failpoint;
use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, Consumer};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How often a lease is renewed, and the former queues are looked at.
const RENEW: Duration = Duration::from_secs(1);

/// How long a replica without an order, and without shards at the last connection, asks the store.
const ASK: Duration = Duration::from_secs(2);

/// Assigns the shards of the settings.
pub struct ShardAssigner {
    store: Arc<dyn ShardLayoutStore>,
    topology: Topology,
    /// Key of the layout: virtual host and work queue.
    key: String,
    replica: Uuid,
    /// The last answer was that there is no layout, and none is wanted.
    unordered: AtomicBool,
    /// Announces a replica without an order, see [`ShardAssigner::announce_unordered`].
    announced: Mutex<Option<Consumer>>,
}

impl ShardAssigner {
    /// An assigner for the work queue of this topology in a virtual host.
    pub fn new(store: Arc<dyn ShardLayoutStore>, topology: Topology, vhost: &str) -> Self {
        let key = format!("{vhost} {}", topology.queue());
        Self {
            store,
            topology,
            key,
            replica: Uuid::new_v4(),
            unordered: AtomicBool::new(false),
            announced: Mutex::default(),
        }
    }

    async fn enter(
        &self,
        publishing: &Connection,
        wanted: Option<Shards>,
        create: bool,
    ) -> Result<(LayoutEntry, Uuid), NotReady> {
        for connection in self.store.expired(&self.key).await? {
            match look(publishing, &self.lease_queue(connection)).await {
                Ok(None) => self.store.remove_expired(&self.key, connection).await?,
                Ok(Some(_)) => {}
                Err(error) if is_reply(&error, &AMQPSoftError::RESOURCELOCKED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let replica = Replica {
            id: self.replica,
            connection: Uuid::new_v4(),
        };
        if wanted.is_some() {
            // Before the lease, so that there is none without its queue. It goes with the connection.
            ConsumerLock::lock(publishing, &self.lease_queue(replica.connection)).await?;
        }
        let entering = self.store.enter(&self.key, wanted, replica, create);
        Ok((entering.await?, replica.connection))
    }

    async fn enter_layout(
        &self,
        consuming: &Connection,
        publishing: &Connection,
        wanted: Option<Shards>,
    ) -> Result<Option<ShardAssignment>, NotReady> {
        let asked = async {
            let entering = self.enter(publishing, wanted, false);
            if !self.unordered.load(Ordering::Relaxed) {
                return entering.await;
            }
            // Without an order RabbitMQ stands in for a store that is away.
            match timeout(ASK, entering).await {
                Ok(Ok(entered)) => Ok(entered),
                _ => {
                    self.no_ordered_consumer(consuming).await?;
                    tracing::warn!("the store does not tell whether shards are left over");
                    Ok((LayoutEntry::Absent, self.replica))
                }
            }
        };
        let entered = match asked.await {
            Ok((LayoutEntry::Absent, _)) => {
                self.no_former_record(consuming).await?;
                self.unordered.store(wanted.is_none(), Ordering::Relaxed);
                if wanted.is_none() {
                    return Ok(None);
                }
                self.enter(publishing, wanted, true).await
            }
            entered => entered,
        };
        let (entry, connection) = entered?;
        let (shards, draining) = match entry {
            LayoutEntry::Entered(shards) => (shards, false),
            LayoutEntry::Draining(shards) => (shards, true),
            LayoutEntry::Absent => {
                let reason = "the layout of the shards has just been removed by another replica";
                return Err(NotReady::Waiting(reason.to_owned()));
            }
            LayoutEntry::Occupied { shards, replicas } => {
                return Err(NotReady::Waiting(format!(
                    "replicas still run with {} shards ({replicas}); stop them first, and start all \
                     replicas with the same broker.order and broker.shards",
                    shards.count
                )));
            }
        };
        if draining {
            tracing::warn!(
                shards = shards.count,
                "processing the messages in the shards of the former layout"
            );
        } else if wanted.is_some_and(|wanted| wanted.prefetch != shards.prefetch) {
            tracing::warn!(
                in_force = shards.prefetch,
                "the prefetch per shard stays as it is until the number of shards changes"
            );
        }
        Ok(Some(ShardAssignment::new(shards, draining, connection)))
    }

    fn lease_queue(&self, connection: Uuid) -> String {
        format!("{}.replica.{connection}", self.topology.queue())
    }

    /// Releases before this one kept the layout on the broker, where this one does not look for it.
    async fn no_former_record(&self, connection: &Connection) -> Result<(), NotReady> {
        let record = format!("{}.shards", self.topology.queue());
        match look(connection, &record).await? {
            None => Ok(()),
            Some(_) => Err(NotReady::Waiting(format!(
                "the queue {record} is the record of an earlier release, which kept the layout of \
                 the shards on the broker. Let the replicas of that release empty their shards, \
                 stop them, delete {record} and, if it exists, {record}.change, and start again"
            ))),
        }
    }

    fn unordered_queue(&self) -> String {
        format!("{}.unordered", self.topology.queue())
    }

    /// Announces a replica without an order, which holds no lease, for as long as it is connected.
    async fn announce_unordered(&self, connection: &Connection) -> Result<(), NotReady> {
        let channel = connection.create_channel().await?;
        let queue = self.unordered_queue();
        let options = QueueDeclareOptions {
            durable: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        // Whatever the default of the virtual host is: only a classic queue is deleted by itself.
        let classic = AMQPValue::LongString("classic".into());
        arguments.insert("x-queue-type".into(), classic);
        channel
            .queue_declare(queue.as_str().into(), options, arguments)
            .await?;
        let consumer = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        *self.announced.lock() = Some(consumer.await?);
        Ok(())
    }

    /// Returns when the announcement has ended, as when its queue is deleted or the queue's node fails.
    async fn keep_announced(&self) -> String {
        let announced = self.announced.lock().take();
        if let Some(mut consumer) = announced {
            while let Some(Ok(_)) = consumer.next().await {}
        }
        format!("no longer a consumer of {}", self.unordered_queue())
    }

    /// Waits a moment for replicas without an order, which may be about to find this one.
    async fn no_unordered_replicas(&self, connection: &Connection) -> Result<(), NotReady> {
        let queue = self.unordered_queue();
        match look_until(connection, &queue, |found| found.consumers == 0).await? {
            Some(found) if found.consumers > 0 => Err(NotReady::Waiting(format!(
                "replicas without an order are connected ({}); stop those with broker.order = \"none\" \
                 first",
                found.consumers
            ))),
            _ => Ok(()),
        }
    }

    /// With an order one replica reads the work queue, under its lock.
    async fn no_ordered_consumer(&self, connection: &Connection) -> Result<(), NotReady> {
        let lock = ConsumerLock::name_of(self.topology.queue());
        match look(connection, &lock).await {
            Err(error) if is_reply(&error, &AMQPSoftError::RESOURCELOCKED) => {
                Err(NotReady::Waiting(format!(
                    "a replica with broker.order = \"user\" reads {}; stop it first",
                    self.topology.queue()
                )))
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Whether the queues of these shards are empty, and no consumer has messages of them in hand.
    async fn is_drained(&self, shards: Shards, connection: &Connection) -> lapin::Result<bool> {
        for shard in shards.all() {
            let queue = shards.queue(self.topology.queue(), shard);
            let found = look(connection, &queue).await?;
            if found.is_some_and(|found| !found.is_vacant() || found.messages > 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The reason to connect anew, if the shards are drained.
    async fn drain(
        &self,
        shards: Shards,
        connection: &Connection,
    ) -> Result<Option<String>, NotReady> {
        if !self.is_drained(shards, connection).await? {
            return Ok(None);
        }
        failpoint::hit("shard_assigner.drained");
        let next = self.topology.shards();
        self.store.replace(&self.key, shards, next).await?;
        failpoint::hit("shard_assigner.replaced");
        Ok(Some("the former shards are empty".to_owned()))
    }

    /// The reason to connect anew, if the lease is lost.
    async fn renew(&self, assignment: &ShardAssignment) -> Result<Option<String>, NotReady> {
        match self.store.renew(&self.key, assignment.connection).await? {
            Some(replicas) => {
                assignment.set_replicas(replicas);
                Ok(None)
            }
            None => Ok(Some(
                "this replica's lease on the shards is lost".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl AssignShards for ShardAssigner {
    async fn assign(
        &self,
        consuming: &Connection,
        publishing: &Connection,
    ) -> Result<Option<ShardAssignment>, NotReady> {
        let wanted = self.topology.shards();
        // Replicas with and without an order exclude each other: each kind announces itself, by a lease
        // or by consuming a queue, before it looks for the other.
        match wanted {
            Some(_) => self.no_unordered_replicas(consuming).await?,
            None => self.announce_unordered(consuming).await?,
        }
        let assigned = self.enter_layout(consuming, publishing, wanted).await;
        if assigned.is_err() {
            *self.announced.lock() = None;
        } else if wanted.is_some() {
            self.no_unordered_replicas(consuming).await?;
        }
        assigned
    }

    async fn keep(&self, assignment: Option<&ShardAssignment>, consuming: &Connection) -> String {
        let Some(assignment) = assignment else {
            return self.keep_announced().await;
        };
        loop {
            tokio::time::sleep(RENEW).await;
            let ended = if assignment.draining {
                self.drain(assignment.shards, consuming).await
            } else {
                self.renew(assignment).await
            };
            match ended {
                Ok(Some(reason)) => return reason,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot keep the layout of the shards"),
            }
        }
    }
}

//! Which number of shards is in force, and how another one comes into force.
//!
//! The broker itself keeps it, as an argument of a queue without messages, `<work queue>.shards`: a
//! replica that declares it with another number is told so. Every replica consumes that queue for as
//! long as it may publish, so its consumers are the replicas that run. A change waits until there
//! are none, is noted in `<work queue>.shards.change`, moves what lies in the old queues into the
//! new ones, and can be broken off and taken up again anywhere: what was moved twice is stored once.
//! The old queues stay, and are empty.

use super::claim::{Claim, is_reply, look, look_until};
use super::message::Rulebook;
use super::moving;
use super::shards::Shards;
use super::topology::Topology;
use crate::metrics::Metrics;
use crate::supervision::failpoint;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, Consumer};

/// Why there is no layout in force yet.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// The broker does not do what it is asked.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// Somebody or something else comes first.
    #[error("{0}")]
    Waiting(String),
}

/// What stands in the two queues that say it: the shards in force, or those to come and how many
/// there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    /// Shards in force or to come; none of them without an order.
    shards: Shards,
    /// Of a change: the shards before it.
    from: Option<Shards>,
}

impl Record {
    fn of(shards: Shards) -> Self {
        Self { shards, from: None }
    }

    /// As the number that stands in the argument: prefetch and count of both.
    fn value(self) -> i64 {
        let pack = |shards: Shards| (i64::from(shards.prefetch) << 9) | i64::from(shards.count);
        (self.from.map_or(0, pack) << 25) | pack(self.shards)
    }

    fn parse(value: i64) -> Self {
        let unpack = |value: i64| Shards {
            count: u16::try_from(value & 0x1ff).unwrap_or(0),
            prefetch: u16::try_from((value >> 9) & 0xffff).unwrap_or(1),
        };
        let from = value >> 25;
        Self {
            shards: unpack(value & 0x1ff_ffff),
            from: (from > 0).then(|| unpack(from)),
        }
    }
}

/// The queue that says the number of shards in force.
pub fn marker(work_queue: &str) -> String {
    format!("{work_queue}.shards")
}

/// The queue that says that the number is changing.
pub fn change(work_queue: &str) -> String {
    format!("{work_queue}.shards.change")
}

/// This replica's place among those that run: as long as it is held, the number of shards stays.
pub struct Presence {
    queue: String,
    /// The shards in force.
    pub shards: Shards,
    /// Ends when somebody deletes the queue, and when the connection ends.
    pub consumer: Consumer,
}

impl Presence {
    /// How many replicas run; none if that cannot be said.
    pub async fn replicas(&self, connection: &Connection) -> usize {
        let found = look(connection, &self.queue).await.ok().flatten();
        found.map_or(0, |found| found.consumers as usize)
    }
}

/// The connections and names it takes to bring a layout into force.
pub(super) struct Layout<'a> {
    pub(super) topology: &'a Topology,
    pub(super) consuming: &'a Connection,
    pub(super) publishing: &'a Connection,
    /// The broker knows how to switch its delivery limit off.
    pub(super) no_limit: bool,
    /// How foreign messages are read that lie on the queues of shards.
    pub(super) rules: &'a Rulebook,
    pub(super) metrics: &'a Metrics,
}

impl Layout<'_> {
    /// Brings the shards of the settings into force, or none of them.
    pub(super) async fn establish(&self) -> Result<Option<Presence>, NotYet> {
        loop {
            if look(self.consuming, &self.change()).await?.is_some() {
                self.change_to(None).await?;
                continue;
            }
            let standing = look(self.consuming, &self.marker()).await?;
            let Some(wanted) = self.topology.shards() else {
                match standing {
                    None => return Ok(None),
                    Some(_) => {
                        self.change_to(Some(Shards {
                            count: 0,
                            prefetch: 1,
                        }))
                        .await?
                    }
                }
                continue;
            };
            if standing.is_none() {
                self.nobody_without_order().await?;
            }
            let record = Record::of(wanted);
            let in_force = match self.declare(&self.marker(), record).await? {
                None => wanted,
                Some(other) if other.shards.count == wanted.count => {
                    tracing::warn!(
                        in_force = other.shards.prefetch,
                        wanted = wanted.prefetch,
                        "messages in hand per shard stay as they were; they change with the \
                         number of shards"
                    );
                    other.shards
                }
                Some(_) => {
                    self.change_to(Some(wanted)).await?;
                    continue;
                }
            };
            let presence = self.present(in_force).await?;
            // A change that began meanwhile has not seen this replica.
            let stands = self.declare(&self.marker(), Record::of(in_force)).await?;
            if stands.is_none() && look(self.consuming, &self.change()).await?.is_none() {
                return Ok(Some(presence));
            }
        }
    }

    fn marker(&self) -> String {
        marker(self.topology.queue())
    }

    fn change(&self) -> String {
        change(self.topology.queue())
    }

    async fn present(&self, shards: Shards) -> lapin::Result<Presence> {
        let queue = self.marker();
        let channel = self.publishing.create_channel().await?;
        let consumer = channel
            .basic_consume(
                queue.as_str().into(),
                "eclusa-present".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(Presence {
            queue,
            shards,
            consumer,
        })
    }

    /// Replicas that keep no order read the work queue themselves, and leave no other trace.
    async fn nobody_without_order(&self) -> Result<(), NotYet> {
        let queue = self.topology.queue();
        match look_until(self.consuming, queue, |found| found.certain).await? {
            Some(found) if !found.certain => Err(NotYet::Waiting(format!(
                "the broker does not say who consumes {queue}"
            ))),
            Some(found) if found.consumers > 0 => Err(NotYet::Waiting(format!(
                "{} consumers read {queue} without an order; stop the replicas with \
                 broker.order = \"none\" first",
                found.consumers
            ))),
            _ => Ok(()),
        }
    }

    /// Brings a number of shards into force, or first the one that somebody has begun to.
    async fn change_to(&self, wanted: Option<Shards>) -> Result<(), NotYet> {
        let (marker, change) = (self.marker(), self.change());
        let running = look(self.consuming, &marker).await?;
        if let Some(found) = running.filter(|found| found.consumers > 0) {
            return Err(still_run(found.consumers));
        }
        let lock = Claim::lock(self.consuming, &format!("{marker}.lock")).await?;
        let Some(lock) = lock else {
            let reason = "another replica is changing the number of shards";
            return Err(NotYet::Waiting(reason.to_owned()));
        };
        let changed = self.change_locked(wanted, &marker, &change).await;
        lock.release().await;
        changed
    }

    /// Whether replicas run with the number of shards before, so that the broker's answer can be told
    /// from none: by consuming the marker as well.
    async fn nobody_runs(&self, marker: &str) -> Result<(), NotYet> {
        let channel = self.consuming.create_channel().await?;
        let consuming = channel
            .basic_consume(
                marker.into(),
                "eclusa-changing".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await;
        let consumer = match consuming {
            Ok(consumer) => consumer,
            // A change that was broken off had come that far.
            Err(error) if is_reply(&error, &AMQPSoftError::NOTFOUND) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // One that has just ended may be counted for a moment.
        let found = look_until(self.consuming, marker, |found| found.consumers == 1).await?;
        channel.close(200, "looked".into()).await?;
        drop(consumer);
        match found.map(|found| found.consumers) {
            None | Some(1) => Ok(()),
            Some(0) => Err(NotYet::Waiting(format!(
                "the broker does not say who consumes {marker}"
            ))),
            Some(others) => Err(still_run(others - 1)),
        }
    }

    async fn change_locked(
        &self,
        wanted: Option<Shards>,
        marker: &str,
        change: &str,
    ) -> Result<(), NotYet> {
        let record = if look(self.consuming, change).await?.is_some() {
            self.read(change).await?
        } else {
            // Another replica may have done it by now.
            let (Some(wanted), Some(_)) = (wanted, look(self.consuming, marker).await?) else {
                return Ok(());
            };
            self.nobody_runs(marker).await?;
            let before = self.read(marker).await?.shards;
            if before.count == wanted.count {
                return Ok(());
            }
            let record = Record {
                shards: wanted,
                from: Some(before),
            };
            self.declare(change, record).await?;
            record
        };
        // Whoever began to run before the change was noted is seen now, and whoever begins from now
        // on sees it. What is noted stays noted, for the next attempt.
        self.nobody_runs(marker).await?;
        if let Some(from) = record.from {
            tracing::warn!(
                from = from.count,
                to = record.shards.count,
                "the number of shards changes: moving what lies in the old queues"
            );
            if record.shards.count > 0 {
                let shards = record.shards;
                let declared = self
                    .topology
                    .declare_shards(self.consuming, shards, self.no_limit);
                declared.await?;
            }
            let moved = moving::all(self, from, record.shards).await?;
            tracing::warn!(messages = moved, to = record.shards.count, "moved");
        }
        self.delete(marker).await?;
        failpoint::hit("layout.marker_deleted");
        if record.shards.count > 0 {
            let other = self.declare(marker, Record::of(record.shards)).await?;
            if let Some(other) = other.filter(|other| other.shards.count != record.shards.count) {
                // It is not in force while the change is noted, and the next attempt brings it about.
                return Err(NotYet::Waiting(format!(
                    "a replica with {} shards has begun while their number was changed to {}; start \
                     all with the same broker.order and broker.shards",
                    other.shards.count, record.shards.count
                )));
            }
        }
        self.delete(change).await?;
        Ok(())
    }

    /// Declares a queue that says a record; gives the one that stands there already, if another.
    async fn declare(&self, name: &str, record: Record) -> Result<Option<Record>, NotYet> {
        let channel = self.consuming.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert(
            "x-max-length".into(),
            AMQPValue::LongLongInt(record.value()),
        );
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(name.into(), options, arguments).await;
        match declared {
            Ok(_) => {
                channel.close(200, "declared".into()).await?;
                Ok(None)
            }
            Err(error) if is_reply(&error, &AMQPSoftError::PRECONDITIONFAILED) => {
                let told = error.to_string();
                current(&told).map(Record::parse).map(Some).ok_or_else(|| {
                    NotYet::Waiting(format!(
                        "{name} is not what Eclusa declares ({told}); if its replicas are stopped \
                         and no shard queue holds messages, delete it"
                    ))
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The record of a queue that exists, under the lock.
    async fn read(&self, name: &str) -> Result<Record, NotYet> {
        // No record has this value, so what stands there is said.
        let nothing = Record::of(Shards {
            count: 0,
            prefetch: 0,
        });
        if let Some(record) = self.declare(name, nothing).await? {
            return Ok(record);
        }
        // It was deleted meanwhile, and is there again by this very question: standing, it would say
        // nothing for ever. Quorum queues cannot be asked whether they are unused; nobody runs with
        // what it says, and it never has messages.
        self.delete(name).await?;
        Err(NotYet::Waiting(format!("{name} was deleted meanwhile")))
    }

    async fn delete(&self, name: &str) -> lapin::Result<()> {
        let channel = self.consuming.create_channel().await?;
        let options = QueueDeleteOptions::default();
        channel.queue_delete(name.into(), options).await?;
        channel.close(200, "deleted".into()).await
    }
}

fn still_run(replicas: u32) -> NotYet {
    NotYet::Waiting(format!(
        "the number of shards is to change, but {replicas} replicas still run with the one before; \
         stop all, then start them with the same broker.order and broker.shards"
    ))
}

/// The value that a queue's argument has, from the broker's complaint about another one:
/// `received '8' but current is '4'`, or `... is the value '4' of type 'long'`.
fn current(complaint: &str) -> Option<i64> {
    let (_, after) = complaint.split_once("'x-max-length'")?;
    let (_, after) = after.split_once("current is ")?;
    let value = after.split('\'').nth(1)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let shards = |count, prefetch| Shards { count, prefetch };
        for record in [
            Record::of(shards(4, 125)),
            Record::of(shards(256, u16::MAX)),
            Record {
                shards: shards(8, 100),
                from: Some(shards(256, u16::MAX)),
            },
            Record {
                shards: shards(0, 1),
                from: Some(shards(4, 125)),
            },
        ] {
            assert_eq!(Record::parse(record.value()), record);
        }
    }

    #[test]
    fn the_brokers_complaint_says_the_number_in_force() {
        let says = |end: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q.shards' in \
                 vhost '/': received '8' but current is {end}"
            )
        };
        assert_eq!(current(&says("'64004'")), Some(64_004));
        assert_eq!(current(&says("the value '4' of type 'long'")), Some(4));
        assert_eq!(current(&says("none")), None);
        assert_eq!(current("something else"), None);
    }
}

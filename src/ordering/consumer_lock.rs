//! `ConsumerLock`: the exclusive right to consume a queue whose messages keep their order.
//!
//! RabbitMQ's single active consumer alone does not keep the order: when the active one cancels with
//! messages in hand, a waiting one gets the later messages at once (seen on 3.10.8). So no replica
//! waits at the queue. It asks whether the queue has a consumer; the number includes consumers that
//! have cancelled and still hold messages. If there is none, an exclusive queue of the connection is
//! the lock under which consuming begins. It goes when the connection goes.
//!
//! A status without messages and consumers may be wrong: RabbitMQ gives it when the leader of a quorum
//! queue does not answer within a quarter of a second, or cannot be asked
//! (`rabbit_quorum_queue:stat`). A faster reply comes from the leader
//! ([`QueueStatus::certain`]), or there is no leader, and then no new consumer is counted either.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ErrorKind};
use std::time::{Duration, Instant};

/// Attempts of [`look_until`], and the pause between them.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A little less than RabbitMQ waits for the answer of a queue's leader.
const LEADER_TELLS: Duration = Duration::from_millis(240);

/// Messages and consumers of a queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueStatus {
    /// Messages that no consumer has in hand.
    pub messages: u32,
    /// Consumers that may get messages or have some in hand.
    pub consumers: u32,
    /// The leader of the queue has answered.
    pub certain: bool,
}

impl QueueStatus {
    /// Whether no consumer gets or holds messages of it.
    pub fn is_vacant(self) -> bool {
        self.certain && self.consumers == 0
    }
}

/// The status of a queue; `None` if it does not exist.
///
/// # Errors
/// lapin's.
pub async fn look(connection: &Connection, queue: &str) -> lapin::Result<Option<QueueStatus>> {
    let channel = connection.create_channel().await?;
    let found = look_over(&channel, queue).await?;
    if found.is_some() {
        channel.close(200, "looked".into()).await?;
    }
    Ok(found)
}

/// The same over an open channel, which the broker has closed if the result is not `Some`.
///
/// # Errors
/// lapin's.
pub async fn look_over(channel: &Channel, queue: &str) -> lapin::Result<Option<QueueStatus>> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = Instant::now();
    match channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
    {
        Ok(queue) => {
            let (messages, consumers) = (queue.message_count(), queue.consumer_count());
            Ok(Some(QueueStatus {
                messages,
                consumers,
                certain: messages > 0 || consumers > 0 || asked.elapsed() < LEADER_TELLS,
            }))
        }
        Err(error) if is_reply(&error, &AMQPSoftError::NOTFOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The status of a queue once it is `enough`, or the last one after several attempts.
///
/// # Errors
/// lapin's.
pub async fn look_until(
    connection: &Connection,
    queue: &str,
    enough: impl Fn(QueueStatus) -> bool,
) -> lapin::Result<Option<QueueStatus>> {
    let mut looks = 0;
    loop {
        let found = look(connection, queue).await?;
        looks += 1;
        if looks == LOOKS || found.is_none_or(&enough) {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A lock that one connection at a time can hold.
pub struct ConsumerLock {
    channel: Channel,
    name: String,
}

impl ConsumerLock {
    /// The name of the lock of a queue.
    pub fn name_of(queue: &str) -> String {
        format!("{queue}.owner")
    }

    /// Takes a lock; `None` while another connection has it.
    ///
    /// # Errors
    /// lapin's.
    pub async fn lock(connection: &Connection, name: &str) -> lapin::Result<Option<Self>> {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel
            .queue_declare(name.into(), options, FieldTable::default())
            .await;
        match declared {
            Ok(_) => Ok(Some(Self {
                channel,
                name: name.to_owned(),
            })),
            Err(error) if is_reply(&error, &AMQPSoftError::RESOURCELOCKED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The right to begin to consume a queue; `None` while another consumer has it or messages of the
    /// queue. [`ConsumerLock::is_sole`] confirms it before the first message is handled.
    ///
    /// # Errors
    /// lapin's.
    pub async fn of_queue(connection: &Connection, queue: &str) -> lapin::Result<Option<Self>> {
        let Some(lock) = Self::lock(connection, &Self::name_of(queue)).await? else {
            return Ok(None);
        };
        // Only under the lock: its last holder may still have messages.
        match look(connection, queue).await {
            Ok(Some(found)) if found.is_vacant() => Ok(Some(lock)),
            other => {
                lock.release().await;
                other.map(|_| None)
            }
        }
    }

    /// Whether the caller is the only consumer of the queue. If not, waiting does not help: the other's
    /// messages return behind those that the caller has in hand.
    ///
    /// # Errors
    /// lapin's.
    pub async fn is_sole(&self, connection: &Connection, queue: &str) -> lapin::Result<bool> {
        // Without any consumer the leader has not answered: the caller is one.
        let found = look_until(connection, queue, |found| found.consumers > 0).await?;
        Ok(found.is_some_and(|found| found.consumers == 1))
    }

    /// Releases the lock. A lost connection has done so already.
    pub async fn release(self) {
        let options = QueueDeleteOptions::default();
        let deleted = self
            .channel
            .queue_delete(self.name.as_str().into(), options);
        if deleted.await.is_ok() {
            let _ = self.channel.close(200, "released".into()).await;
        }
    }
}

/// Whether the broker closed the channel with this reply.
pub fn is_reply(error: &lapin::Error, reply: &AMQPSoftError) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == reply)
        }
        _ => false,
    }
}

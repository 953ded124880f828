//! The sole right to consume a queue whose messages keep their order.
//!
//! RabbitMQ's single active consumer alone does not keep it: when the active one cancels with
//! messages in hand, a waiting one gets the later messages at once (seen on 3.10.8). So nobody waits
//! at the queue. Who wants it looks whether it has a consumer; the number counts those that have
//! cancelled and hold messages still. If there is none, an exclusive queue of the connection is the
//! lock under which consuming begins. It goes when the connection does.
//!
//! That a look shows no messages and no consumers may mean nothing: RabbitMQ answers so when the
//! leader of a quorum queue does not tell within a quarter of a second, or cannot be asked
//! (`rabbit_quorum_queue:stat`). An answer that took less than that is the leader's ([`Look::certain`]),
//! or there was none, which whoever consumes itself finds out: it is not counted.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ErrorKind};
use std::time::{Duration, Instant};

/// How often a look is made before it is given up, and the pause before the next.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long RabbitMQ waits for a leader to tell what its queue holds, less a little.
const LEADER_TELLS: Duration = Duration::from_millis(240);

/// What a queue holds.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Messages that nobody has in hand.
    pub messages: u32,
    /// Consumers that may get messages or have some in hand.
    pub consumers: u32,
    /// It is not what the broker answers for want of knowing.
    pub certain: bool,
}

impl Look {
    /// Whether nobody consumes it, and nobody has messages of it in hand.
    pub fn is_vacant(self) -> bool {
        self.certain && self.consumers == 0
    }
}

/// Looks at a queue; `None` if it does not exist.
///
/// # Errors
/// lapin's.
pub async fn look(connection: &Connection, queue: &str) -> lapin::Result<Option<Look>> {
    let channel = connection.create_channel().await?;
    let found = look_over(&channel, queue).await?;
    if found.is_some() {
        channel.close(200, "looked".into()).await?;
    }
    Ok(found)
}

/// The same over a channel that is there. With `None` the broker has closed it.
///
/// # Errors
/// lapin's.
pub async fn look_over(channel: &Channel, queue: &str) -> lapin::Result<Option<Look>> {
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
            Ok(Some(Look {
                messages,
                consumers,
                certain: messages > 0 || consumers > 0 || asked.elapsed() < LEADER_TELLS,
            }))
        }
        Err(error) if is_reply(&error, &AMQPSoftError::NOTFOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks until `enough` is satisfied, or it has been some times; gives the last look.
///
/// # Errors
/// lapin's.
pub async fn look_until(
    connection: &Connection,
    queue: &str,
    enough: impl Fn(Look) -> bool,
) -> lapin::Result<Option<Look>> {
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

/// A lock that one connection at a time can have.
pub struct Claim {
    channel: Channel,
    name: String,
}

impl Claim {
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

    /// The right to begin to consume a queue; `None` while somebody else has it, or has messages of
    /// it. Whoever has begun confirms it by [`Claim::is_sole`] before it handles a message.
    ///
    /// # Errors
    /// lapin's.
    pub async fn of_queue(connection: &Connection, queue: &str) -> lapin::Result<Option<Self>> {
        let Some(claim) = Self::lock(connection, &format!("{queue}.owner")).await? else {
            return Ok(None);
        };
        // Only now: whoever had the lock before may have messages still.
        match look(connection, queue).await {
            Ok(Some(found)) if found.is_vacant() => Ok(Some(claim)),
            other => {
                claim.release().await;
                other.map(|_| None)
            }
        }
    }

    /// Whether the caller, who consumes the queue by now, is the only one to do so. If it is not, the
    /// other's messages come back behind those that the caller has in hand: there is nothing to wait
    /// for.
    ///
    /// # Errors
    /// lapin's.
    pub async fn is_sole(&self, connection: &Connection, queue: &str) -> lapin::Result<bool> {
        // One that is counted has been told by the leader; none means that it did not tell.
        let found = look_until(connection, queue, |found| found.consumers > 0).await?;
        Ok(found.is_some_and(|found| found.consumers == 1))
    }

    /// Gives it up. A connection that is gone has done so already.
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
pub(super) fn is_reply(error: &lapin::Error, reply: &AMQPSoftError) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == reply)
        }
        _ => false,
    }
}

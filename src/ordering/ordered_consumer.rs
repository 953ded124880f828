//! A consumer whose messages go back to their queue in their order, whatever ends it.
//!
//! RabbitMQ puts all that a channel has in hand back in its order when the channel closes. It does not
//! when the consumer is cancelled before: what is on its way to the channel at that moment comes back
//! by itself, ahead of what arrived earlier (seen on 3.10.8; `rabbit_fifo_client:handle_delivery`).
//! lapin cancels a consumer that is dropped. So the channel is closed first, always.

use futures::StreamExt;
use futures::stream::ReadyChunks;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};

/// The consumer, on a channel of its own.
pub struct OrderedConsumer {
    channel: Channel,
    consumer: Consumer,
}

impl OrderedConsumer {
    /// Begins to consume with so many messages in hand at most.
    ///
    /// # Errors
    /// lapin's.
    pub async fn begin(
        connection: &Connection,
        queue: &str,
        tag: &str,
        prefetch: u16,
    ) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        let options = BasicQosOptions::default();
        channel.basic_qos(prefetch, options).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue.into(), tag.into(), options, FieldTable::default())
            .await?;
        Ok(Self { channel, consumer })
    }

    /// What acknowledgements go over.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Its messages, some at a time.
    pub fn chunks(&self, at_once: usize) -> ReadyChunks<Consumer> {
        self.consumer.clone().ready_chunks(at_once)
    }

    /// Closes the channel; what is in hand is back in the queue, or will be before any consumer sees the
    /// queue without a consumer.
    pub async fn end(self) {
        let _ = self.channel.close(200, "given up".into()).await;
    }
}

impl Drop for OrderedConsumer {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        let (channel, consumer) = (self.channel.clone(), self.consumer.clone());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                let _ = channel.close(200, "given up".into()).await;
                drop(consumer);
            })),
            // The process is ending, and the connection with it.
            Err(_) => std::mem::forget(consumer),
        }
    }
}

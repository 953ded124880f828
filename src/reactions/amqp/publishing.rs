//! The connection of a handler: made when the first message needs it, and again after it fails.

use super::message::Message;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Publishes messages over one connection.
pub(super) struct Publishing {
    uri: AMQPUri,
    /// Locked while a connection is made, so that concurrent runs share it.
    current: tokio::sync::Mutex<Option<Arc<OpenConnection>>>,
}

/// A connection and its idle channels, in confirm mode.
struct OpenConnection {
    connection: Connection,
    idle: Mutex<Vec<Channel>>,
    /// A message got no answer in time: whatever its state says, the connection may be dead.
    suspect: AtomicBool,
}

/// A message on its way. Dropped without an answer, it makes its connection suspect.
struct InFlight {
    over: Arc<OpenConnection>,
    answered: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.answered {
            self.over.suspect.store(true, Ordering::Release);
        }
    }
}

impl OpenConnection {
    fn is_usable(&self) -> bool {
        self.connection.status().connected() && !self.suspect.load(Ordering::Acquire)
    }

    /// Publishes a message, mandatory, and waits for its confirm. lapin gives a returned message to the
    /// next confirm on its channel, so a channel has one message at a time.
    async fn publish(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        message: Message,
    ) -> lapin::Result<Confirmation> {
        let channel = self.channel().await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let Message { body, properties } = message;
        let answer = channel
            .basic_publish(exchange, routing_key, options, &body, properties)
            .await?
            .await?;
        self.idle.lock().push(channel);
        Ok(answer)
    }

    /// An idle channel, or a new one.
    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(channel)
    }
}

impl Publishing {
    /// Nothing is connected yet.
    pub(super) fn new(uri: AMQPUri) -> Self {
        Self {
            uri,
            current: tokio::sync::Mutex::new(None),
        }
    }

    /// The server as errors name it.
    pub(super) fn server(&self) -> String {
        let authority = &self.uri.authority;
        format!("the broker {}:{}", authority.host, authority.port)
    }

    /// Publishes a message and waits for its confirm. Given up half-way, it takes the connection with
    /// it: the next message has a new one.
    pub(super) async fn publish(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        message: Message,
    ) -> lapin::Result<Confirmation> {
        let mut in_flight = InFlight {
            over: self.connection().await?,
            answered: false,
        };
        let answer = in_flight.over.publish(exchange, routing_key, message).await;
        in_flight.answered = true;
        answer
    }

    async fn connection(&self) -> lapin::Result<Arc<OpenConnection>> {
        let mut current = self.current.lock().await;
        if let Some(open) = current.as_ref().filter(|open| open.is_usable()) {
            return Ok(Arc::clone(open));
        }
        *current = None;
        let name = "eclusa reactions".into();
        let properties = ConnectionProperties::default().with_connection_name(name);
        let open = Arc::new(OpenConnection {
            connection: Connection::connect_uri(self.uri.clone(), properties).await?,
            idle: Mutex::default(),
            suspect: AtomicBool::new(false),
        });
        *current = Some(Arc::clone(&open));
        Ok(open)
    }
}

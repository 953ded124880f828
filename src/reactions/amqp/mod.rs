//! The handler that publishes a message for each event.

mod message;
mod publishing;

use super::handler::{Handler, HandlerError, Run};
use crate::broker::connection;
use crate::config::Invalid;
use crate::config::broker::BrokerSettings;
use crate::config::reactions::amqp::AmqpSettings;
use crate::expression::Expression;
use async_trait::async_trait;
use lapin::Confirmation;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use message::Message;
use publishing::Publishing;
use std::time::Duration;

/// Where the routing key comes from.
enum RoutingKey {
    Fixed(String),
    Expression(Expression),
    EventType,
}

/// Publishes each event as JSON to an exchange, confirmed and mandatory: a run succeeds when a queue
/// has the message.
///
/// Its connection belongs to the tokio runtime on which it was made, and ends with it.
pub struct AmqpMessage {
    exchange: ShortString,
    routing_key: RoutingKey,
    persistent: bool,
    publishing: Publishing,
    timeout: Duration,
}

impl AmqpMessage {
    /// Parses the URL and the expression; it makes no connection. `timeout` is the limit of one attempt,
    /// the connection included.
    ///
    /// # Errors
    /// The first setting that cannot be used. The key begins with `amqp.`.
    pub fn new(
        settings: &AmqpSettings,
        broker: &BrokerSettings,
        timeout: Duration,
    ) -> Result<Self, Invalid> {
        let mut found = Vec::new();
        settings.validate("amqp", &mut found);
        if let Some(invalid) = found.into_iter().next() {
            return Err(invalid);
        }
        let mut broker = broker.clone();
        if !settings.url.is_empty() {
            broker.url.clone_from(&settings.url);
        }
        if broker.url.is_empty() {
            let reason = "is empty, and so is broker.url; set one of them";
            return Err(Invalid::new("amqp.url", reason));
        }
        // The parser's reason may quote the URL, and the URL holds a password.
        let uri = connection::uri(&broker).map_err(|_| {
            let reason = "or broker.url in place of it, cannot be read as an AMQP URI; write one such \
                          as amqp://user:password@host:5672/vhost";
            Invalid::new("amqp.url", reason)
        })?;
        let exchange = ShortString::try_new(&*settings.exchange)
            .map_err(|error| Invalid::new("amqp.exchange", error.to_string()))?;
        let routing_key = match (&settings.routing_key, &settings.routing_key_from) {
            (Some(key), _) => RoutingKey::Fixed(key.clone()),
            (None, Some(text)) => {
                RoutingKey::Expression(Expression::parse(text).map_err(|invalid| {
                    Invalid::new("amqp.routing_key_from", format!("is invalid: {invalid}"))
                })?)
            }
            (None, None) => RoutingKey::EventType,
        };
        Ok(Self {
            exchange,
            routing_key,
            persistent: settings.persistent,
            publishing: Publishing::new(uri),
            timeout,
        })
    }

    /// The routing key of a run's message.
    ///
    /// # Errors
    /// Why there is none, now and at any other attempt.
    fn routing_key(&self, run: &Run) -> Result<ShortString, String> {
        let key = match &self.routing_key {
            RoutingKey::Fixed(key) => key.clone(),
            RoutingKey::EventType => run.event.event_type.clone(),
            RoutingKey::Expression(expression) => expression
                .text(&run.event)
                .map_err(|error| format!("there is no routing key: {error}"))?
                .ok_or("the event lacks what routing_key_from needs")?,
        };
        ShortString::try_new(key).map_err(|error| format!("the routing key is too long: {error}"))
    }

    /// What follows from the broker's answer.
    fn outcome(
        &self,
        routing_key: &ShortString,
        answer: lapin::Result<Confirmation>,
    ) -> Result<(), HandlerError> {
        let (exchange, server) = (self.exchange.as_str(), self.publishing.server());
        let failed = |reason: String| Err(HandlerError::Failed(reason));
        match answer {
            Ok(Confirmation::Ack(None)) => Ok(()),
            // With `mandatory` the confirm of an unroutable message carries the message.
            Ok(Confirmation::Ack(Some(_))) => failed(format!(
                "no queue gets messages of the exchange {exchange:?} with the routing key {:?}; bind one",
                routing_key.as_str()
            )),
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                failed(format!("{server} refused the message"))
            }
            Err(error) if is_not_found(&error) => failed(format!(
                "the exchange {exchange:?} does not exist at {server}; declare it"
            )),
            Err(error) => failed(format!("cannot publish to {server}: {error}")),
        }
    }
}

/// Whether the broker says that there is no such exchange.
fn is_not_found(error: &lapin::Error) -> bool {
    let lapin::ErrorKind::ProtocolError(reply) = error.kind() else {
        return false;
    };
    matches!(reply.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

impl std::fmt::Debug for AmqpMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpMessage")
            .field("server", &self.publishing.server())
            .field("exchange", &self.exchange.as_str())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for AmqpMessage {
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        let routing_key = self.routing_key(run).map_err(HandlerError::Discard)?;
        let message = Message::new(run, self.persistent).map_err(HandlerError::Discard)?;
        let exchange = self.exchange.clone();
        let sending = self
            .publishing
            .publish(exchange, routing_key.clone(), message);
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(answer) => self.outcome(&routing_key, answer),
            Err(_) => Err(HandlerError::Failed(format!(
                "{} has not confirmed the message within {}",
                self.publishing.server(),
                humantime::format_duration(self.timeout)
            ))),
        }
    }
}

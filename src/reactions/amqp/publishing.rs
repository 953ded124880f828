//! Publishing one message at a time on each channel.

use super::message::Message;
use crate::broker::on_demand::{OnDemandConnection, OpenConnection};
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use std::sync::Arc;

/// Publishes messages over one connection.
pub(super) struct Publishing(OnDemandConnection);

/// A message on its way. Dropped without an answer, it makes its connection suspect.
struct InFlight {
    over: Arc<OpenConnection>,
    answered: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.answered {
            self.over.suspect();
        }
    }
}

impl Publishing {
    /// Nothing is connected yet.
    pub(super) fn new(uri: AMQPUri) -> Self {
        Self(OnDemandConnection::new(uri, "eclusa reactions"))
    }

    /// The server as errors name it.
    pub(super) fn server(&self) -> String {
        self.0.server()
    }

    /// Publishes a message, mandatory, and waits for its confirm. Given up half-way, it takes the
    /// connection with it: the next message has a new one.
    pub(super) async fn publish(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        message: Message,
    ) -> lapin::Result<Confirmation> {
        let mut in_flight = InFlight {
            over: self.0.open().await?,
            answered: false,
        };
        let answer = publish(&in_flight.over, exchange, routing_key, message).await;
        in_flight.answered = true;
        answer
    }
}

/// lapin gives a returned message to the next confirm on its channel, so a channel has one message at
/// a time.
async fn publish(
    over: &OpenConnection,
    exchange: ShortString,
    routing_key: ShortString,
    message: Message,
) -> lapin::Result<Confirmation> {
    let channel = over.channel().await?;
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let Message { body, properties } = message;
    let answer = channel
        .basic_publish(exchange, routing_key, options, &body, properties)
        .await?
        .await?;
    over.put_back(channel);
    Ok(answer)
}

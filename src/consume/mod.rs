//! Consuming from RabbitMQ: messages become deliveries, settled tickets become acknowledgements.

pub mod ack_tracker;
pub mod adaptive_prefetch;
pub mod amqp_consumer;
pub mod message_decoder;

pub use amqp_consumer::AmqpConsumer;

//! RabbitMQ: connecting, declaring queues, publishing with confirms, and decoding messages.

pub mod connection;
pub mod contents;
pub mod dead_letter;
pub mod error;
mod foreign_message;
pub mod headers;
pub mod message;
pub mod on_demand;
pub mod outgoing_frame;
pub mod publisher;
pub mod server_version;
pub mod sessions;
pub mod shard_assignment;
pub mod stream_queue;
pub mod topology;

pub use connection::{BrokerConnection, Destination, Link, LinkWatch};
pub use outgoing_frame::{FrameBounds, OutgoingFrame};
pub use publisher::{PublishError, Publisher};

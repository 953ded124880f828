//! RabbitMQ: the connection and its loss, what is declared there, publishing with confirms, and
//! reading what others have published.

pub mod channel_ledger;
pub mod claim;
pub mod connection;
pub mod dead_letter;
pub mod error;
pub mod layout;
pub mod message;
mod moving;
pub mod ordered_consumer;
pub mod publisher;
pub mod server_version;
pub mod shards;
pub mod sorting;
pub mod topology;
pub mod window;

pub use connection::{BrokerConnection, Link, LinkWatch};
pub use publisher::{PublishError, Publisher};
pub use shards::Shards;

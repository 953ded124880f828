//! RabbitMQ: the connection and its loss, what is declared there, publishing with confirms, and
//! reading what others have published.

pub mod channel_ledger;
pub mod connection;
pub mod dead_letter;
pub mod error;
pub mod message;
pub mod publisher;
pub mod server_version;
pub mod topology;

pub use connection::{BrokerConnection, Link, LinkWatch};
pub use publisher::{PublishError, Publisher};

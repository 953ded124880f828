//! Order by user: one queue, one consumer and one writer per shard.

pub mod consumer_lock;
pub mod ordered_consumer;
pub mod ordered_session;
pub mod resharder;
pub mod shard_assigner;
pub mod shard_balancer;
pub mod shard_consumer;

pub use resharder::Resharder;
pub use shard_assigner::ShardAssigner;
pub use shard_consumer::ShardConsumer;

//! Ingest: the actor of each HTTP worker makes events durable, through the broker or the store.

pub mod admission;
pub mod completions;
pub mod http_ingest;
pub mod ingest_queue;
pub mod publish_buffer;
pub mod request;

pub use completions::Completions;
pub use http_ingest::HttpIngest;
pub use ingest_queue::IngestQueue;

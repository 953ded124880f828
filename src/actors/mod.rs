//! The actors, and who sends what to whom.
//!
//! ```text
//!   HTTP request                                            RabbitMQ
//!        │ Ingest                                              │ deliveries
//!        ▼             direct: Handoff                         ▼
//!   HttpIngest ───────────────────────────┐              AmqpConsumer ◄── settlements (ledger)
//!        │ full: frames                   │                    │ Push          ▲
//!        ▼                                ▼                    │               │
//!    RabbitMQ                     BatchAccumulator ◄───────────┘               │
//!                                   │        ▲                                 │
//!                        WriteBatch │        │ WriterReady                     │
//!                                   ▼        │                                 │
//!                                  DbWriter pool ──────── tickets ─────────────┤
//!                                      │ Failed                                │
//!                                      ▼                                       │
//!                                RetrySupervisor ──────── tickets ─────────────┘
//!                                      │ dead letters
//!                 full: dead-letter queue │ direct: table
//!                                      ▼
//!                             DeadLetterProjector ──► table dead_letters
//! ```
//!
//! With an order by user there is a lane for each shard: `ShardConsumer`, `BatchAccumulator` and one
//! `DbWriter`. `HttpIngest` publishes to the shards, and `Resharder` sorts onto them what others put on
//! the work queue.
//!
//! A writer asks for work ([`batch_accumulator::WriterReady`]); until one asks, events wait in the
//! accumulator, bounded by prefetch and by the budget of bytes. Settlements do not go through
//! mailboxes, which could be full: a ticket answers its origin directly.
//!
//! Beside the flow: a [`Leader`] keeps the lease under which [`Retention`] drops what is old.

pub mod amqp_consumer;
pub mod batch_accumulator;
pub mod db_writer;
pub mod dead_letter_projector;
pub mod departures;
pub mod handoff;
pub mod http_ingest;
pub mod intake;
pub mod lanes;
pub mod leader;
pub mod open_batch;
pub mod ordered_session;
pub mod resharder;
pub mod retention;
pub mod retry_supervisor;
pub mod sessions;
pub mod shard_consumer;
pub mod share;
mod writing;

pub use amqp_consumer::AmqpConsumer;
pub use batch_accumulator::BatchAccumulator;
pub use db_writer::DbWriter;
pub use dead_letter_projector::DeadLetterProjector;
pub use handoff::Handoff;
pub use http_ingest::HttpIngest;
pub use lanes::Lanes;
pub use leader::Leader;
pub use resharder::Resharder;
pub use retention::Retention;
pub use retry_supervisor::RetrySupervisor;
pub use shard_consumer::ShardConsumer;

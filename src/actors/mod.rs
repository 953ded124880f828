//! The actors, and who sends what to whom.
//!
//! ```text
//!   HTTP request                                            RabbitMQ
//!        │ Ingest                                              │ deliveries
//!        ▼              direct: Push                           ▼
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
//! A writer asks for work ([`batch_accumulator::WriterReady`]); until one asks, events wait in the
//! accumulator, bounded by prefetch and by the budget of bytes. Settlements do not go through
//! mailboxes, which could be full: a ticket answers its origin directly.

pub mod amqp_consumer;
pub mod batch_accumulator;
pub mod db_writer;
pub mod dead_letter_projector;
pub mod http_ingest;
pub mod open_batch;
pub mod retry_supervisor;
mod writing;

pub use amqp_consumer::AmqpConsumer;
pub use batch_accumulator::BatchAccumulator;
pub use db_writer::DbWriter;
pub use dead_letter_projector::DeadLetterProjector;
pub use http_ingest::HttpIngest;
pub use retry_supervisor::RetrySupervisor;

//! Batching and writing: events gather into batches, each batch is one transaction.

pub mod batch_accumulator;
pub mod writer_partitions;
pub mod db_writer;
mod batch_write;
pub mod writer_params;
pub mod messages;
pub mod open_batch;
mod row_limit;
pub mod waiting_events;

pub use batch_accumulator::BatchAccumulator;
pub use db_writer::DbWriter;
pub use writer_partitions::WriterPartitions;

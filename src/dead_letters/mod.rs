//! Dead letters: from their queue into the table, and back into the flow.

pub mod contents;
pub mod dead_letter_projector;
pub mod purge;
pub mod replay;

pub use dead_letter_projector::DeadLetterProjector;

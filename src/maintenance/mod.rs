//! Work that one process does for all: a leader holds a lease, retention drops old days.

pub mod leader;
pub mod retention;

pub use leader::Leader;
pub use retention::Retention;

//! Reactions: named handlers of events, each run until it has an outcome.

pub mod handler;

pub use handler::{Handler, HandlerError, Run};

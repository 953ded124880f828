//! Reactions: named handlers of events, each run until it has an outcome.

pub mod handler;
#[cfg(feature = "service")]
pub mod webhook;

pub use handler::{Handler, HandlerError, Run};

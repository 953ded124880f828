//! Reactions: named handlers of events, each run until it has an outcome.
//!
//! A lane of a reaction is a follower of the log (`NAME:LANE`). The event in the log is the intention to react to it, and
//! one row says what became of it: a run that succeeds at its first attempt costs that insert alone. What fails, or
//! is due later, goes through a queue ([`crate::store::reactions`]). So a run is handled at least once, and nothing
//! but the database is needed for it.

mod attempts;
mod backlog;
mod completer;
pub mod completion;
mod decision;
#[cfg(feature = "service")]
pub mod amqp;
#[cfg(feature = "service")]
pub mod email;
mod fetch;
pub mod handler;
mod intake;
mod lane;
mod oldest_due;
mod outcomes;
mod queue;
mod rate;
pub mod reaction;
mod reactor;
mod reopened;
pub mod runs;
pub mod selection;
mod start;
#[cfg(feature = "service")]
pub mod handlers;
#[cfg(feature = "service")]
pub mod log;
#[cfg(feature = "service")]
mod upcasting;
#[cfg(feature = "service")]
pub mod webhook;
mod window;

pub use completion::CompleteError;
pub use handler::{Handler, HandlerError, Run};
pub use reaction::{InvalidReaction, Reaction};
pub use start::{Reactions, ReactionsNotStarted};

//! Reactions: named handlers of events, each run until it has an outcome.

#[cfg(feature = "service")]
pub mod email;
#[cfg(feature = "expressions")]
pub mod expression;
pub mod handler;
#[cfg(feature = "service")]
pub mod webhook;

#[cfg(feature = "expressions")]
pub use expression::{Expression, ExpressionError, InvalidExpression};
pub use handler::{Handler, HandlerError, Run};

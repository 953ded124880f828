//! What follows a failure.

pub mod policy;

pub use policy::{Action, FailureKind, Situation, Verdict};

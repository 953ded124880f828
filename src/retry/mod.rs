//! What follows a failure: the policy, and what becomes of dead letters.

pub mod contents;
pub mod policy;
pub mod purge;
pub mod replay;

pub use policy::{Action, FailureKind, Situation, Verdict};

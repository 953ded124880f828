//! Settings of reactions.

#[cfg(feature = "service")]
pub mod webhook;

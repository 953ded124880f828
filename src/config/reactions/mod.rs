//! Settings of reactions.

#[cfg(feature = "service")]
pub mod email;
#[cfg(feature = "service")]
pub mod webhook;

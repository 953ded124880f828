//! What follows a failure: the policy, delayed retries, dead-lettering, and circuit breakers.

pub mod breaker;
pub mod policy;
pub mod retry_supervisor;

pub use breaker::{Breaker, BreakerProbe, BreakerState};
pub use policy::{Action, FailureContext};
pub use retry_supervisor::RetrySupervisor;

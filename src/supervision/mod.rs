//! Keeping actors alive: a supervisor that survives panics, mailboxes that can be seen into, and
//! the orderly end.
//!
//! actix restarts an actor that stops, but a panic takes the actor, its supervisor and its whole
//! mailbox with it. [`supervise`] owns the mailbox's receiver outside the actor, so a panic costs
//! the message in hand and nothing else.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod failpoint;
pub mod health;
pub mod mailbox;
pub mod shutdown;
pub mod supervisor;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerProbe, BreakerState};
pub use budget::{Budget, Permit};
pub use health::HealthBoard;
pub use mailbox::{ActorMessage, Handling, Inbox, Mailbox, Tracked};
pub use shutdown::{Lifecycle, Phase};
pub use supervisor::{RestartPolicy, supervise};

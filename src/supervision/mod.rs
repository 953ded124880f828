//! Keeping actors alive: a supervisor that survives panics, mailboxes that can be seen into, and
//! the orderly end.
//!
//! actix restarts an actor that stops, but a panic takes the actor, its supervisor and its whole
//! mailbox with it. [`supervise`] owns the mailbox's receiver outside the actor, so a panic costs
//! the message in hand and nothing else.

pub mod backoff;
pub mod failpoint;
pub mod health;
pub mod mailbox;
pub mod lifecycle;
pub mod starter;
pub mod supervisor;

pub use backoff::Backoff;
pub use health::HealthBoard;
pub use lifecycle::{Lifecycle, Phase};
pub use mailbox::{ActorMessage, Handling, Inbox, Mailbox, MessageSender, Tracked};
pub use starter::Starter;
pub use supervisor::{RestartPolicy, supervise};

//! Collectors: clients that pull the messages of a key through short-lived streams of answers.
//!
//! ```text
//!   log ── Feed (follower) ──► stream_messages ──► StreamStore::call ──► Polls ──► HTTP
//!                                     ▲                                  ▲
//!                                     └────── StreamWatch ── wakes ──────┘ Waiters
//! ```
//!
//! A declared stream has a follower, its `feed`, which turns events into messages under keys. A collector opens a
//! session of a key, and each answer carries the token that asks for the next one and acknowledges this one
//! ([`polls`]). What a call decides is in the store ([`ledger`](crate::store::streams::ledger)), so any process may
//! answer any call. A call that finds nothing waits in the process (`waiters`) and holds no connection; `watch`
//! looks for messages on behalf of all that wait.

mod feed;
pub mod generator;
mod measure;
pub mod polls;
mod shape;
mod start;
pub mod stream;
mod token;
mod waiters;
mod watch;

pub use polls::{Polled, Polls};
pub use start::{CollectorActors, Collectors};
pub use stream::Stream;

//! Outlets of the settings: followers that publish events to RabbitMQ.
//!
//! ```text
//!   log ── Follower ── a chunk ──► RabbitOutlet ── a window of messages ──► exchange or stream
//!              ▲                        │                                        │
//!              └── position ◄───────────┴────────────── confirms ────────────────┘
//! ```
//!
//! The position is stored behind what is confirmed, so each event is sent at least once. An outlet has one
//! channel, on which messages go out in the order of the log; outlets of one server share a connection.

mod declared;
mod message;
mod outlet_channel;
mod progress;
mod rabbit_outlet;

pub use declared::Outlets;

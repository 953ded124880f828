//! Topics: the log as streams of events that any client reads, from any position on.
//!
//! A subscriber at the end of the log shares its reads with all others there: one reader of the process
//! keeps the newest events in a ring of bounded size. A subscriber that is behind it reads the log by itself, a
//! bounded number of them at a time, until it has caught up.
//!
//! ```text
//!   LogWatch ──► TailReader ── one read for all ──► Tail ──► Subscriber ──► client
//!                                                              ▲
//!   log ───── own reads, of those that are behind ─────────────┘
//! ```
//!
//! A subscriber has no thread, and no connection to the database but during a read of its own. What it has for its
//! client counts in a budget of bytes. `RollWatch` ends it when its client takes nothing, when its API
//! key is revoked, when the log becomes another one, and when the process stops.

pub mod counts;
mod excerpt;
mod format;
mod open;
mod own_read;
mod roll;
mod roll_watch;
mod shared;
mod start;
mod subscriber;
mod tail;
mod tail_reader;

pub use format::StreamFormat;
pub use open::{NotOpened, Opening, StartAt};
pub use roll::{EndReason, Holder, NoSeat, StreamClient};
pub use start::{TopicActors, Topics};
pub use subscriber::Subscriber;

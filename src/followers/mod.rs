//! Followers: named readers of the event log with a durable position.
//!
//! A follower reads the log in the order of commits ([`CommitLog`](crate::store::CommitLog)), and either
//! applies each chunk to the database in one transaction with its new position ([`Projection`]), or sends
//! it elsewhere and then stores the position ([`Outlet`]). Each runs under a lease of its own, so the
//! processes of one database share the followers.
//!
//! ```text
//!   DbWriter ── CommitSignal ──► Sequencer ── numbers the commits, watches the end of the log
//!   other processes ── Peers ──►    │ LogEnd
//!                                   ▼
//!                               Follower ── reads a chunk, applies it, stores the position
//! ```

mod chunk;
#[cfg(feature = "service")]
pub(crate) mod cloud_event;
pub(crate) mod driver;
mod external;
pub mod follower;
pub(crate) mod lag;
pub mod log_end;
pub mod outlet;
mod passes;
pub mod projection;
mod registry;
pub mod roster;
pub mod sequencer;
mod start;
mod steps;
mod transactional;

pub use log_end::{CommitSignal, LogEnd, LogWatch};
pub use outlet::{Outlet, SendError};
pub use projection::Projection;
pub use registry::{Followers, InvalidFollower, Subscription};
pub(crate) use start::while_away;
pub use start::{FollowerOptions, NotStarted, RunningFollowers};

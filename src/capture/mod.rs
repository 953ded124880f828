//! Capture: the committed changes of tables of a PostgreSQL, by logical replication.
//!
//! ```text
//!   PostgreSQL ── pgoutput ──► ReplicationStream ── ReplicationMessage ──► Recorder ──► Event
//!        ▲                          │ confirm                                 ▲
//!        └───── status updates ─────┘              catalog ── TableShape ─────┘
//! ```
//!
//! [`CaptureDatabase`] makes the connections. [`ReplicationStream`] reads what the server decodes from its log, in the
//! order of commits, and confirms the position up to which everything is durable here. [`catalog`] looks at the tables,
//! the publication and the slot. [`Recorder`] makes the event of a change or of a row of a snapshot: both come as
//! PostgreSQL's texts of the values, and one path ([`value`]) turns them into JSON.

mod agreement;
mod authentication;
pub mod catalog;
mod change_capture;
mod chunk;
pub mod commands;
pub mod database;
pub mod error;
mod feedback;
mod fields;
mod frames;
mod hand_over;
mod in_hand;
pub mod lsn;
pub mod message;
mod params;
mod pgoutput;
mod preparation;
mod reading;
pub mod record;
pub mod replication;
mod session;
pub mod shape;
pub mod slot_watch;
mod snapshots;
mod start;
pub mod state;
mod shrink;
mod socket;
pub mod stream;
pub mod timelines;
pub mod value;
mod visible;

pub use change_capture::ChangeCapture;
pub use database::CaptureDatabase;
pub use error::{CaptureError, CaptureFault};
pub use lsn::Lsn;
pub use message::{Relation, ReplicationMessage, RowChange};
pub use record::{Recorder, Refused};
pub use shape::{ColumnRules, TableShape};
pub use slot_watch::{CaptureActivity, CaptureStatus, SlotWatch};
pub use start::{CaptureWiring, Captures};
pub use state::{CaptureOrder, CaptureState, TableSnapshot};
pub use stream::ReplicationStream;
pub use timelines::Timelines;

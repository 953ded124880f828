//! What a call of a place changes, and its answer.

use super::Ticket;
use super::holdings::Handed;
use chrono::{DateTime, Utc};
use std::time::Duration;

/// What has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    pub message: Handed,
    /// When it may be handed out again.
    pub due: DateTime<Utc>,
}

/// A message that waits for the earlier ones of its order key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub number: i64,
    pub order_key: String,
}

/// A session's new row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub session: i64,
    pub n: i32,
    pub handed: Vec<Handed>,
    pub expires_at: DateTime<Utc>,
}

/// What follows for the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The messages of the session's new row, or of the one it has.
    Messages {
        next: Ticket,
        handed: Vec<Handed>,
        /// The session had this answer before.
        repeated: bool,
    },
    Waiting {
        next: Ticket,
        /// All that was looked at has to wait, and more follows it.
        more: bool,
    },
    Full {
        after: Duration,
    },
    TakenOver,
    Gone,
    Unknown,
    Done,
}

/// What is to be written, and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The session that begins, and its slot.
    pub begun: Option<(i64, u32)>,
    pub ended: Vec<i64>,
    /// Acknowledged: their messages are deleted.
    pub acknowledged: Vec<i64>,
    pub returned: Vec<Returned>,
    /// No longer behind the cursor, and not handed out yet.
    pub parked: Vec<Parked>,
    /// Handed out too often: dead letters.
    pub undeliverable: Vec<Handed>,
    /// No longer among the returned ones, since they are handed out.
    pub taken: Vec<i64>,
    /// Order keys of which something was handed out, and nothing is any more.
    pub released: Vec<String>,
    pub answer: Option<Answer>,
    pub cursor: i64,
    pub verdict: Verdict,
}

impl Decision {
    /// Whether a row says what holds from now on: also of the place alone, whose cursor goes with no session.
    pub fn has_row(&self) -> bool {
        self.answer.is_some() || !self.ended.is_empty()
    }
}

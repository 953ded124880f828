//! What the store knows of pull streams: messages that wait to be collected, and who collects them.
//!
//! A *place* is a key of a declared stream. Its messages are numbered in the order of the log and handed out behind a
//! cursor; what was handed out and is not acknowledged belongs to one *session*, which is one collector's stream of
//! answers, and returns when that lapses. All calls of a place come one after the other: under a lock of the place on
//! PostgreSQL, in the one writer of SQLite. [`ledger`] decides each of them, so both stores decide alike.
//!
//! Rows are appended and deleted, never updated: a snapshot that is held open keeps dead versions of a row that is
//! updated with each answer, and each later look at the row would visit all of them.

mod choice;
pub mod decision;
pub mod holdings;
pub mod ledger;

use super::commit_log::Position;
use super::dead_letters::{DeadLetter, DeadLetterFailure};
use super::transaction::{Effect, EffectError, Transaction};
use super::{ErrorKind, StoreError};
use crate::event::pix::PixMessage;
use crate::event::{Cause, StoredEvent, id};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use decision::{Decision, Verdict};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// A key of a declared stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The number of the declared stream.
    pub stream: i32,
    pub key: String,
}

/// How a stream's messages are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRules {
    /// The most sessions of a place at a time.
    pub slots: u32,
    /// How long a session lives without a call.
    pub idle: Duration,
    /// How long a call may wait for messages; the session lives that much longer meanwhile.
    pub wait: Duration,
    /// A message that was handed out so often and comes back is dead-lettered.
    pub max_deliveries: Option<u32>,
    /// While a message is handed out, later ones of its order key are not handed out to other sessions.
    pub ordered: bool,
}

/// A token's content: the session, and the number of the answer that the token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub session: i64,
    /// 1 for the first answer.
    pub n: i32,
}

/// Which messages of an answer a collector means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    All,
    Events(Vec<Uuid>),
}

/// What is asked of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Opens a session, and hands out at most `limit` messages.
    Start { limit: usize },
    /// Acknowledges the answer before, and hands out at most `limit` messages, or the same ones again if they were
    /// asked for already. `waiting` is the poll that asks again after it was told to wait.
    Next {
        ticket: Ticket,
        limit: usize,
        waiting: Option<i64>,
    },
    /// The answer could not be given to the collector: its messages return, and the ticket stays good. With the row of
    /// that answer, only if no later call of the session had it too.
    GiveBack { ticket: Ticket, row: Option<i64> },
    /// Ends the session. With the newest ticket the last answer is acknowledged; with the one before, which its
    /// collector has no answer to, its messages return.
    End { ticket: Ticket },
    /// Returns messages of the answer that the ticket follows; they are due after `delay`.
    Refuse {
        ticket: Ticket,
        which: Which,
        delay: Duration,
    },
    /// The messages of the answer that the ticket follows stay with their session for so long from now on. Without
    /// messages there is nothing to extend.
    Extend { ticket: Ticket, lease: Duration },
    /// Ends all sessions of the place, or one; their messages return.
    Release { session: Option<i64> },
    /// Ends the sessions whose time is over.
    Lapse,
}

/// A message on its way to a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub event_id: Uuid,
    /// With this one.
    pub deliveries: u32,
    /// As JSON.
    pub body: String,
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `next` asks for the answer behind this one.
    Messages {
        next: Ticket,
        messages: Vec<Delivered>,
        acknowledged: u32,
        /// Names this answer in a [`Call::GiveBack`]; `None` for one that the session had before, which its collector
        /// may have.
        row: Option<i64>,
    },
    /// There are none; `next` asks again, and `poll` says who waits. With `more` there may be some behind those that
    /// were looked at.
    Waiting {
        next: Ticket,
        poll: i64,
        acknowledged: u32,
        more: bool,
    },
    /// All slots of the place are taken; the first may be free after this time.
    Full { after: Duration },
    /// Another call with the same ticket waits now.
    TakenOver,
    /// The session has ended, or the ticket's successor was used.
    Gone,
    /// No session ever had this ticket.
    Unknown,
    /// Done: how many messages were acknowledged, and how many returned.
    Done { acknowledged: u32, returned: u32 },
}

/// What a [`Call`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub reply: Reply,
    /// Messages that became dead letters.
    pub undeliverable: u32,
}

impl Called {
    /// What a decision did, with the messages, and the number of the row that says who waits.
    pub(super) fn of(decision: &Decision, messages: Vec<Delivered>, row: Option<i64>) -> Self {
        let size = |list: usize| u32::try_from(list).unwrap_or(u32::MAX);
        let acknowledged = size(decision.acknowledged.len());
        let reply = match decision.verdict {
            Verdict::Messages { next, repeated, .. } => Reply::Messages {
                next,
                messages,
                acknowledged,
                row: row.filter(|_| !repeated),
            },
            Verdict::Waiting { next, more } => Reply::Waiting {
                next,
                poll: row.unwrap_or_default(),
                acknowledged,
                more,
            },
            Verdict::Full { after } => Reply::Full { after },
            Verdict::TakenOver => Reply::TakenOver,
            Verdict::Gone => Reply::Gone,
            Verdict::Unknown => Reply::Unknown,
            Verdict::Done => Reply::Done {
                acknowledged,
                returned: size(decision.returned.len()),
            },
        };
        Self {
            reply,
            undeliverable: size(decision.undeliverable.len()),
        }
    }
}

/// A message that arrives.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub key: String,
    pub order_key: Option<String>,
    pub event_id: Uuid,
    pub position: Position,
    /// What collectors get, as JSON.
    pub body: String,
    /// The Pix message that it is.
    pub pix: Option<PixMessage>,
}

/// Adds messages to a stream, in the order of the log. Of those that are Pix messages one is added per `endToEndId`.
#[derive(Debug, Clone)]
pub struct Deliver {
    pub stream: i32,
    pub messages: Vec<NewMessage>,
}

#[async_trait]
impl Effect for Deliver {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        match transaction {
            #[cfg(feature = "postgres")]
            Transaction::Postgres(connection) => {
                super::postgres::stream_messages::deliver(connection, self).await?;
            }
            #[cfg(feature = "sqlite")]
            Transaction::Sqlite(connection) => {
                super::sqlite::stream_messages::deliver(connection, self)?;
            }
        }
        Ok(())
    }
}

/// The dead letter of a message that was handed out too often. With its event and the event's position it can be
/// delivered again; without them, since the log no longer has the event, it keeps what collectors got.
pub(super) fn undeliverable(
    stream: &str,
    key: &str,
    message: &Delivered,
    event: Option<(&StoredEvent, Position)>,
) -> DeadLetter {
    let failure = DeadLetterFailure {
        at: Utc::now(),
        cause: Cause::Undeliverable.as_str().to_owned(),
        error: format!(
            "handed out {} times to collectors of {key}, and not acknowledged",
            message.deliveries
        ),
        sqlstate: None,
        attempts: message.deliveries,
    };
    let follower = follower_name(stream);
    let id = id::of_follower_letter(&follower, message.event_id);
    let body = match event {
        Some((event, _)) => serde_json::to_vec(event).unwrap_or_default(),
        None => message.body.clone().into_bytes(),
    };
    let mut letter = DeadLetter::new(id, failure, &follower, body);
    letter.event_id = Some(message.event_id);
    letter.content_type = Some("application/json".to_owned());
    if let Some((event, position)) = event {
        letter.event_type = Some(event.event_type.clone());
        let position = Value::String(position.to_string());
        letter.headers.insert("position".to_owned(), position);
    }
    letter
}

/// The follower that delivers a stream's messages.
pub fn follower_name(stream: &str) -> String {
    format!("streams.{stream}")
}

pub(super) fn secret(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| {
        let message = "the table stream_secret has no 32 bytes; restore the row";
        StoreError::new(ErrorKind::Operator, message)
    })
}

/// A declared stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    pub id: i32,
    pub name: String,
    pub declared_at: DateTime<Utc>,
}

/// How much a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StreamLevel {
    /// Messages that can be handed out, or could but for a delay or an earlier one of their order key.
    pub waiting: u64,
    /// Messages that are handed out and not acknowledged.
    pub leased: u64,
    /// Live sessions.
    pub sessions: u64,
    /// For how long the oldest one waits that was never handed out.
    pub oldest_waiting: Option<Duration>,
}

/// A place as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceRecord {
    pub key: String,
    pub waiting: u64,
    pub sessions: Vec<SessionRecord>,
}

/// A live session as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub id: i64,
    pub slot: u32,
    pub started_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub leased: u32,
}

/// Keeps streams.
#[async_trait]
pub trait StreamStore: Send + Sync {
    /// Declares a stream, and returns its number.
    async fn declare_stream(&self, name: &str) -> Result<i32, StoreError>;

    /// All streams that were declared, by name.
    async fn streams(&self) -> Result<Vec<StreamRecord>, StoreError>;

    /// The key of the tokens' signatures, one for all processes of the database.
    async fn stream_secret(&self) -> Result<[u8; 32], StoreError>;

    /// Does what is asked of a place.
    async fn call(
        &self,
        place: &Place,
        call: &Call,
        rules: &StreamRules,
    ) -> Result<Called, StoreError>;

    /// How many of these `endToEndId`s have a recorded message.
    async fn pix_messages(&self, end_to_end_ids: &[String]) -> Result<u64, StoreError>;

    /// Those of these keys that have a message to hand out now.
    async fn ready_keys(&self, stream: i32, keys: &[String]) -> Result<Vec<String>, StoreError>;

    /// Those of these polls that another call has ended or taken over; see [`Reply::Waiting`].
    async fn ended_polls(&self, polls: &[i64]) -> Result<Vec<i64>, StoreError>;

    /// Places of these streams that have sessions whose time is over, at most `limit`.
    async fn lapsed_places(&self, streams: &[i32], limit: usize) -> Result<Vec<Place>, StoreError>;

    /// How much a stream holds.
    async fn stream_level(&self, stream: i32) -> Result<StreamLevel, StoreError>;

    /// The keys of a stream with messages or sessions behind `after`, by key, at most `limit`.
    async fn places(
        &self,
        stream: i32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PlaceRecord>, StoreError>;

    /// One key of a stream.
    async fn place(&self, place: &Place) -> Result<PlaceRecord, StoreError>;
}

//! Dead letters: events and messages that could not be processed, and the trait of a store that
//! keeps them.

use super::{StoreError, times};
use crate::event::Cause;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Longest text of an error that is kept.
const MAX_ERROR: usize = 4_000;
/// Most failures in a dead letter's history: the first, and the newest ones.
const MAX_HISTORY: usize = 20;

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterState {
    /// Not replayed since its last failure.
    Dead,
    /// Replayed, and not failed since.
    Replayed,
}

impl DeadLetterState {
    /// The word in the `state` column and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadLetterState::Dead => "dead",
            DeadLetterState::Replayed => "replayed",
        }
    }

    /// The reverse of [`DeadLetterState::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [DeadLetterState::Dead, DeadLetterState::Replayed]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One failure of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterFailure {
    pub at: DateTime<Utc>,
    /// Why, in a word. Not an enum: another release may know more words.
    pub cause: String,
    /// Why, in a sentence.
    pub error: String,
    /// The store's code for it.
    pub sqlstate: Option<String>,
    /// Attempts so far, this one included.
    pub attempts: u32,
}

/// The failures of a dead letter before its last one: the first, and the newest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<HistoryEntry>", into = "Vec<HistoryEntry>")]
pub struct DeadLetterHistory {
    /// Oldest first, at most 20.
    pub failures: Vec<DeadLetterFailure>,
    /// How many are not kept, between the first and the next one.
    pub omitted: u32,
}

impl DeadLetterHistory {
    fn push(&mut self, failure: DeadLetterFailure) {
        self.failures.push(failure);
        // More than one at a time where an earlier release kept all.
        let excess = self.failures.len().saturating_sub(MAX_HISTORY);
        self.failures.drain(1..=excess);
        let excess = u32::try_from(excess).unwrap_or(u32::MAX);
        self.omitted = self.omitted.saturating_add(excess);
    }
}

/// A failure in the column `history`. `omitted` is a field of the first one, which releases that
/// do not know it ignore.
#[derive(Clone, Serialize, Deserialize)]
struct HistoryEntry {
    #[serde(flatten)]
    failure: DeadLetterFailure,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    omitted: Option<u32>,
}

impl From<Vec<HistoryEntry>> for DeadLetterHistory {
    fn from(entries: Vec<HistoryEntry>) -> Self {
        Self {
            omitted: entries.iter().filter_map(|entry| entry.omitted).sum(),
            failures: entries.into_iter().map(|entry| entry.failure).collect(),
        }
    }
}

impl From<DeadLetterHistory> for Vec<HistoryEntry> {
    fn from(history: DeadLetterHistory) -> Self {
        let mut omitted = Some(history.omitted).filter(|omitted| *omitted > 0);
        let entry = |failure| HistoryEntry {
            failure,
            omitted: omitted.take(),
        };
        history.failures.into_iter().map(entry).collect()
    }
}

/// A message, an item of one, or an event, that could not be processed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its identity, which it keeps when a replay fails again.
    pub id: Uuid,
    /// The event, where the body had been read.
    pub event_id: Option<Uuid>,
    pub event_type: Option<String>,
    pub failure: DeadLetterFailure,
    /// The queue it was taken from, or `direct`.
    pub origin: String,
    /// The content type of the bytes, as declared.
    pub content_type: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// Whether `body` is a frame of Eclusa's own.
    pub frame: bool,
    /// The bytes as they came; an event that had been read is a frame again.
    pub body: Vec<u8>,
    pub headers: Map<String, Value>,
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// The failures before the last one.
    pub history: DeadLetterHistory,
    pub state: DeadLetterState,
    /// When it was last replayed.
    pub replayed_at: Option<DateTime<Utc>>,
    /// How often it was replayed.
    pub replays: u32,
}

impl DeadLetter {
    /// A dead letter of a first failure, without the optional fields.
    pub fn new(id: Uuid, failure: DeadLetterFailure, origin: &str, body: Vec<u8>) -> Self {
        Self {
            id,
            event_id: None,
            event_type: None,
            created_at: failure.at,
            failure,
            origin: origin.to_owned(),
            content_type: None,
            message_id: None,
            frame: false,
            body,
            headers: Map::new(),
            history: DeadLetterHistory::default(),
            state: DeadLetterState::Dead,
            replayed_at: None,
            replays: 0,
        }
    }

    /// The cause of the last failure.
    pub fn cause(&self) -> Cause {
        Cause::parse(&self.failure.cause).unwrap_or(Cause::Unknown)
    }

    /// As both stores can keep it: times to the microsecond, and no U+0000 in texts, which
    /// PostgreSQL refuses. The body is bytes and stays as it is.
    pub(super) fn storable(mut self) -> Self {
        self.created_at = times::floor(self.created_at);
        self.failure.at = times::floor(self.failure.at);
        if self.failure.error.len() > MAX_ERROR {
            self.failure.error = self.failure.error.chars().take(MAX_ERROR).collect();
        }
        clean(&mut self.failure.cause);
        clean(&mut self.failure.error);
        clean(&mut self.origin);
        let optional = [
            &mut self.failure.sqlstate,
            &mut self.event_type,
            &mut self.content_type,
            &mut self.message_id,
        ];
        optional.into_iter().flatten().for_each(clean);
        self.headers = std::mem::take(&mut self.headers)
            .into_iter()
            .map(|(mut key, mut value)| {
                clean(&mut key);
                clean_value(&mut value);
                (key, value)
            })
            .collect();
        self
    }

    /// Takes in another failure under this id. `false` if it is known already: the same failure
    /// delivered twice. The body stays: what failed may be one event of several in it.
    pub(super) fn failed_again(&mut self, failure: DeadLetterFailure) -> bool {
        // By equality, not by order: clocks of two replicas may differ.
        let known = std::iter::once(&self.failure).chain(&self.history.failures);
        if known.into_iter().any(|known| known.at == failure.at) {
            return false;
        }
        let last = std::mem::replace(&mut self.failure, failure);
        self.history.push(last);
        self.state = DeadLetterState::Dead;
        true
    }
}

fn clean(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter_mut().for_each(clean_value),
        Value::Object(members) => {
            *members = std::mem::take(members)
                .into_iter()
                .map(|(mut key, mut value)| {
                    clean(&mut key);
                    clean_value(&mut value);
                    (key, value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Selects dead letters. Absent parts do not filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFilter {
    pub ids: Option<Vec<Uuid>>,
    /// Only with this last cause.
    pub cause: Option<String>,
    /// Only of this event type.
    pub event_type: Option<String>,
    /// Only those whose last failure was at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those whose last failure was before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only in this state.
    pub state: Option<DeadLetterState>,
}

/// A dead letter's place in the order of first failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetterPosition {
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// Its id, for those of one moment.
    pub id: Uuid,
}

impl std::fmt::Display for DeadLetterPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.created_at.timestamp_micros(), self.id)
    }
}

impl std::str::FromStr for DeadLetterPosition {
    type Err = ();

    /// The reverse of its text.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, id) = text.split_once('.').ok_or(())?;
        let micros = micros.parse().map_err(|_| ())?;
        Ok(Self {
            created_at: DateTime::from_timestamp_micros(micros).ok_or(())?,
            id: Uuid::try_parse(id).map_err(|_| ())?,
        })
    }
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterOrder {
    /// Newest first failure first.
    Newest,
    /// Oldest first failure first.
    Oldest,
}

/// A dead letter in a listing, without its bytes, headers and history, which may be large.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterSummary {
    pub id: Uuid,
    pub event_id: Option<Uuid>,
    pub event_type: Option<String>,
    pub failure: DeadLetterFailure,
    /// Where it was taken from.
    pub origin: String,
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    pub state: DeadLetterState,
    /// When it was last replayed.
    pub replayed_at: Option<DateTime<Utc>>,
    /// How often it was replayed.
    pub replays: u32,
    /// Bytes of its body.
    pub body_bytes: u64,
}

impl DeadLetterSummary {
    /// Its place in listings.
    pub fn position(&self) -> DeadLetterPosition {
        DeadLetterPosition {
            created_at: self.created_at,
            id: self.id,
        }
    }
}

/// A dead letter that a replay has sent, and the failure that it had then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    pub id: Uuid,
    /// [`DeadLetterFailure::at`] when it was read. If the letter has failed again since, it stays dead.
    pub failed_at: DateTime<Utc>,
}

#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Inserts dead letters in one transaction. One whose id is there already has failed again: its
    /// former failure goes to its history and it is dead again. The same failure inserted twice
    /// changes nothing. Returns the number of those that are new or failed again.
    ///
    /// # Errors
    /// Nothing was inserted.
    async fn insert(&self, letters: Vec<DeadLetter>) -> Result<u64, StoreError>;

    /// The dead letter of this id.
    async fn get_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError>;

    /// Dead letters in an order, after `after` if given, at most `limit`.
    async fn list_letters(
        &self,
        filter: &DeadLetterFilter,
        order: DeadLetterOrder,
        after: Option<DeadLetterPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetterSummary>, StoreError>;

    /// How many there are.
    async fn count_letters(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError>;

    /// Counts a replay of each, and marks those replayed that have not failed again since they
    /// were read.
    async fn mark_replayed(&self, letters: Vec<Replayed>) -> Result<(), StoreError>;

    /// Deletes the oldest that match the filter, at most `limit`, and returns their number.
    async fn purge_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: usize,
    ) -> Result<u64, StoreError>;
}

/// Sorted by id, so that two inserts of the same dead letters do not deadlock; failures of one keep
/// their order.
pub(super) fn in_order(letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
    let mut letters: Vec<_> = letters.into_iter().map(DeadLetter::storable).collect();
    letters.sort_by_key(|letter| letter.id);
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(seconds: i64) -> DeadLetterFailure {
        DeadLetterFailure {
            at: DateTime::from_timestamp(seconds, 0).unwrap(),
            cause: "poison".to_owned(),
            error: format!("at {seconds}\0"),
            sqlstate: None,
            attempts: 1,
        }
    }

    #[test]
    fn a_failure_is_taken_in_once_whatever_its_order() {
        let mut letter = DeadLetter::new(Uuid::nil(), failure(5), "direct", Vec::new());
        letter.state = DeadLetterState::Replayed;
        assert!(!letter.failed_again(failure(5)));
        assert_eq!(letter.state, DeadLetterState::Replayed);
        assert!(letter.failed_again(failure(3)), "a clock that is behind");
        assert_eq!(letter.state, DeadLetterState::Dead);
        assert!(!letter.failed_again(failure(5)));
        assert_eq!(
            (letter.history.failures.len(), letter.failure.at),
            (1, failure(3).at)
        );
    }

    #[test]
    fn a_history_of_an_earlier_release_is_cut_to_the_bound() {
        let mut letter = DeadLetter::new(Uuid::nil(), failure(100), "direct", Vec::new());
        let all: Vec<_> = (0..50).map(failure).collect();
        letter.history = serde_json::from_value(json!(all)).unwrap();
        assert_eq!(letter.history.omitted, 0);
        assert!(letter.failed_again(failure(101)));
        let stored = serde_json::to_string(&letter.history).unwrap();
        assert_eq!(stored.matches("omitted").count(), 1, "{stored}");
        let history: DeadLetterHistory = serde_json::from_str(&stored).unwrap();
        assert_eq!(history, letter.history);
        assert_eq!((history.failures.len(), history.omitted), (MAX_HISTORY, 31));
        let kept: Vec<i64> = history.failures.iter().map(|f| f.at.timestamp()).collect();
        assert_eq!((kept[0], kept[1], kept[19]), (0, 32, 100));
    }

    #[test]
    fn what_no_store_takes_is_replaced_in_texts_only() {
        let mut letter = DeadLetter::new(Uuid::nil(), failure(5), "direct", b"a\0b".to_vec());
        letter.headers = json!({"k\0": ["\0", {"x\0": "y"}]})
            .as_object()
            .cloned()
            .unwrap();
        let kept = letter.storable();
        assert_eq!(kept.body, b"a\0b");
        assert_eq!(kept.failure.error, "at 5\u{fffd}");
        let headers = Value::Object(kept.headers).to_string();
        assert!(!headers.contains("\\u0000"), "{headers}");
    }
}

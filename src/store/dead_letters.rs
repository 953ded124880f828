//! What the flow put aside: the letters, and the trait of a store that keeps them.

use super::{StoreError, times};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Longest text of an error that is kept.
const MAX_ERROR: usize = 4_000;

/// Whether a letter waits for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Put aside.
    Dead,
    /// Sent through the flow again, and not back since.
    Replayed,
}

impl LetterState {
    /// The word in the `state` column and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            LetterState::Dead => "dead",
            LetterState::Replayed => "replayed",
        }
    }

    /// The reverse of [`LetterState::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [LetterState::Dead, LetterState::Replayed]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// How a letter failed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: DateTime<Utc>,
    /// Why, in a word. Not an enum: another release may know more words.
    pub cause: String,
    /// Why, in a sentence.
    pub error: String,
    /// The store's code for it.
    pub sqlstate: Option<String>,
    /// How often it had been tried.
    pub attempts: u32,
}

/// A message, an item of one, or an event, that was put aside.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its identity; a replay that fails again comes back under the same one.
    pub id: Uuid,
    /// The event, where the body had been read.
    pub event_id: Option<Uuid>,
    /// Its type.
    pub event_type: Option<String>,
    /// The last failure.
    pub failure: Failure,
    /// The queue it was taken from, or `direct`.
    pub origin: String,
    /// What the bytes were said to be.
    pub content_type: Option<String>,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// Whether `body` is a frame of Eclusa's own.
    pub frame: bool,
    /// The bytes as they came; an event that had been read is a frame again.
    pub body: Vec<u8>,
    /// The message's headers.
    pub headers: Map<String, Value>,
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// The failures before the last one, oldest first.
    pub history: Vec<Failure>,
    /// Whether it waits for somebody.
    pub state: LetterState,
    /// When it was last sent again.
    pub replayed_at: Option<DateTime<Utc>>,
    /// How often it was sent again.
    pub replays: u32,
}

impl DeadLetter {
    /// A letter of a first failure, without what only some letters have.
    pub fn new(id: Uuid, failure: Failure, origin: &str, body: Vec<u8>) -> Self {
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
            history: Vec::new(),
            state: LetterState::Dead,
            replayed_at: None,
            replays: 0,
        }
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

    /// Takes in what was buried again under this letter's id. `false` if that is known already: the
    /// same failure delivered twice. The body stays: what failed may be one event of several in it.
    pub(super) fn failed_again(&mut self, failure: Failure) -> bool {
        // By equality, not by order: clocks of two replicas may differ.
        let known = std::iter::once(&self.failure).chain(&self.history);
        if known.into_iter().any(|known| known.at == failure.at) {
            return false;
        }
        self.history
            .push(std::mem::replace(&mut self.failure, failure));
        self.state = LetterState::Dead;
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

/// Which letters. Absent parts do not filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LetterFilter {
    /// Only these.
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
    pub state: Option<LetterState>,
}

/// A letter's place in the order of first failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterPosition {
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// Its id, which tells letters of one moment apart.
    pub id: Uuid,
}

impl std::fmt::Display for LetterPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.created_at.timestamp_micros(), self.id)
    }
}

impl std::str::FromStr for LetterPosition {
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

/// In which order letters are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterOrder {
    /// Newest first failure first.
    Newest,
    /// Oldest first failure first.
    Oldest,
}

/// A letter in a listing: without its bytes, headers and history, which may be large.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterSummary {
    /// Its identity.
    pub id: Uuid,
    /// The event.
    pub event_id: Option<Uuid>,
    /// Its type.
    pub event_type: Option<String>,
    /// The last failure.
    pub failure: Failure,
    /// Where it was taken from.
    pub origin: String,
    /// When it failed first.
    pub created_at: DateTime<Utc>,
    /// Whether it waits for somebody.
    pub state: LetterState,
    /// When it was last sent again.
    pub replayed_at: Option<DateTime<Utc>>,
    /// How often it was sent again.
    pub replays: u32,
    /// Bytes of its body.
    pub body_bytes: u64,
}

impl LetterSummary {
    /// Its place in listings.
    pub fn position(&self) -> LetterPosition {
        LetterPosition {
            created_at: self.created_at,
            id: self.id,
        }
    }
}

/// One that a replay has sent: its id, and the failure that had been read when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The letter.
    pub id: Uuid,
    /// [`Failure::at`] when it was read. If the letter has failed again since, it stays dead.
    pub failed_at: DateTime<Utc>,
}

/// The dead letters.
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Keeps the letters, in one transaction. A letter whose id is there already has failed again:
    /// its former failure goes to its history and it is dead again. The same failure buried twice
    /// changes nothing. Gives the number of letters that are new or failed again.
    ///
    /// # Errors
    /// Nothing was kept.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<u64, StoreError>;

    /// The letter of this id.
    async fn get_letter(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError>;

    /// Letters in an order, behind `after` if given, at most `limit`.
    async fn list_letters(
        &self,
        filter: &LetterFilter,
        order: LetterOrder,
        after: Option<LetterPosition>,
        limit: usize,
    ) -> Result<Vec<LetterSummary>, StoreError>;

    /// How many there are.
    async fn count_letters(&self, filter: &LetterFilter) -> Result<u64, StoreError>;

    /// Counts a replay of each, and marks those replayed that have not failed again since they
    /// were read.
    async fn mark_replayed(&self, letters: Vec<Replayed>) -> Result<(), StoreError>;

    /// Deletes the oldest that pass the filter, at most `limit`, and says how many.
    async fn purge_letters(&self, filter: &LetterFilter, limit: usize) -> Result<u64, StoreError>;
}

/// Sorted by id, so that two burials of the same letters do not deadlock; failures of one letter
/// keep their order.
pub(super) fn in_order(letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
    let mut letters: Vec<_> = letters.into_iter().map(DeadLetter::storable).collect();
    letters.sort_by_key(|letter| letter.id);
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(seconds: i64) -> Failure {
        Failure {
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
        letter.state = LetterState::Replayed;
        assert!(!letter.failed_again(failure(5)));
        assert_eq!(letter.state, LetterState::Replayed);
        assert!(letter.failed_again(failure(3)), "a clock that is behind");
        assert_eq!(letter.state, LetterState::Dead);
        assert!(!letter.failed_again(failure(5)));
        assert_eq!(
            (letter.history.len(), letter.failure.at),
            (1, failure(3).at)
        );
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

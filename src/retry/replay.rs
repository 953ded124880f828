//! Sending dead letters through the flow again, oldest first.
//!
//! Each letter is read again, sent, and marked when its events are durable: in full mode confirmed
//! by the work queue, in direct mode committed. Broken off in between, a letter is sent again by the
//! next replay under the same event ids, so nothing is lost and nothing is stored twice. One that
//! fails again comes back to the same letter, with its history.

use super::contents;
use crate::actors::BatchAccumulator;
use crate::actors::batch_accumulator::Push;
use crate::broker::Publisher;
use crate::broker::message::Contents;
use crate::config::{LiveSettings, Settings};
use crate::event::outcome::Refusal;
use crate::event::{Event, Outcome, frame, request};
use crate::metrics::Metrics;
use crate::store::dead_letters::{
    LetterFilter, LetterOrder, LetterPosition, LetterState, LetterSummary, Replayed,
};
use crate::store::{DeadLetterStore, StoreError};
use crate::supervision::{Budget, Lifecycle, Mailbox, Phase, failpoint};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::Instant;
use uuid::Uuid;

/// Letters under way at once: their bodies are in memory.
const CHUNK: usize = 32;
/// Failures that a report names.
const NAMED: usize = 20;

/// Where the events of letters become durable.
#[derive(Clone)]
pub enum Way {
    /// In the store.
    Direct(Mailbox<BatchAccumulator>),
    /// On the work queue.
    Queue(Box<Publisher>),
}

/// Replays letters; clones share what they are wired to.
#[derive(Clone)]
pub struct Replayer {
    /// The letters.
    pub letters: Arc<dyn DeadLetterStore>,
    /// Where their events go.
    pub way: Way,
    /// How bodies are read, and how fast they are sent.
    pub settings: LiveSettings,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// When to stop.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// What to replay. Without a state in the filter: what is dead.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// Which letters.
    pub filter: LetterFilter,
    /// Go on behind what an earlier run has done.
    pub cursor: Option<Cursor>,
    /// At most so many letters.
    pub limit: Option<u64>,
    /// Letters in a second; 0 is without a bound, `None` what the settings say.
    pub rate: Option<u32>,
    /// Read the letters, send nothing.
    pub dry_run: bool,
    /// Stop after this time.
    pub time: Option<Duration>,
}

/// How far a replay has come, and where it ends: at the newest letter there was when it began.
/// Letters that come meanwhile, its own among them, are for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    after: Option<LetterPosition>,
    bound: LetterPosition,
}

/// A letter that was not replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotReplayed {
    /// The letter.
    pub id: Uuid,
    /// Why.
    pub reason: String,
}

/// What a replay has done.
#[derive(Debug, Default)]
pub struct Report {
    /// Letters whose events are durable now; on a dry run, those that would be sent.
    pub replayed: u64,
    /// Letters that stay dead: they cannot be read still, or failed again at once.
    pub failed: u64,
    /// The first of those.
    pub failures: Vec<NotReplayed>,
    /// Where to go on; `None` when there is nothing left.
    pub next: Option<Cursor>,
    /// Why it stopped before its end: the letters from here on could not be sent now.
    pub stopped: Option<String>,
}

/// What became of one letter.
enum Fate {
    Sent,
    /// It went back to the dead letters at once.
    FailedAgain(String),
    /// It cannot be read, or not all of it.
    Unreadable(String),
    /// Somebody has purged it meanwhile.
    Gone,
    /// It could not be sent now.
    NotNow(String),
}

impl Replayer {
    /// Replays. `progress` hears of each chunk.
    ///
    /// # Errors
    /// When the letters cannot be listed at all. What fails later stops the run, and the report
    /// says so.
    pub async fn run(
        &self,
        replay: &Replay,
        mut progress: impl FnMut(&Report),
    ) -> Result<Report, StoreError> {
        let began = Instant::now();
        let mut report = Report::default();
        let mut filter = replay.filter.clone();
        filter.state.get_or_insert(LetterState::Dead);
        let Some(mut cursor) = self.begin(replay, &filter).await? else {
            return Ok(report);
        };
        let rate = replay
            .rate
            .unwrap_or_else(|| self.settings.get().dead_letters.replay_rate);
        let mut due = began;
        loop {
            report.next = Some(cursor);
            let left = replay.limit.map_or(u64::MAX, |limit| {
                limit.saturating_sub(report.replayed + report.failed)
            });
            let late = replay.time.is_some_and(|time| began.elapsed() >= time);
            if left == 0 || late {
                break;
            }
            if self.lifecycle.phase() == Phase::Draining {
                report.stopped = Some("the process is stopping".to_owned());
                break;
            }
            let page = match self.page(&filter, cursor, chunk(left, rate)).await {
                Ok(page) => page,
                Err(error) => {
                    report.stopped = Some(error.to_string());
                    break;
                }
            };
            let Some(last) = page.last().map(LetterSummary::position) else {
                report.next = None;
                break;
            };
            if rate > 0 && !replay.dry_run {
                tokio::time::sleep_until(due).await;
                due = due.max(Instant::now()) + Duration::from_secs(1) * page_len(&page) / rate;
            }
            if let Err(reason) = self.chunk(&page, replay.dry_run, &mut report).await {
                report.stopped = Some(reason);
                break;
            }
            cursor.after = Some(last);
            progress(&report);
        }
        Ok(report)
    }

    async fn begin(
        &self,
        replay: &Replay,
        filter: &LetterFilter,
    ) -> Result<Option<Cursor>, StoreError> {
        if replay.cursor.is_some() {
            return Ok(replay.cursor);
        }
        let newest = self
            .letters
            .list_letters(filter, LetterOrder::Newest, None, 1)
            .await?;
        Ok(newest.first().map(|newest| Cursor {
            after: None,
            bound: newest.position(),
        }))
    }

    async fn page(
        &self,
        filter: &LetterFilter,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<LetterSummary>, StoreError> {
        let mut page = self
            .letters
            .list_letters(filter, LetterOrder::Oldest, cursor.after, limit)
            .await?;
        page.retain(|letter| letter.position() <= cursor.bound);
        Ok(page)
    }

    /// Sends the letters of a page and marks them. The error is why it has to stop; some of them
    /// may be sent all the same.
    async fn chunk(
        &self,
        page: &[LetterSummary],
        dry_run: bool,
        report: &mut Report,
    ) -> Result<(), String> {
        let fates = self.send(page, dry_run).await;
        failpoint::hit("replay.after_send");
        let marks: Vec<Replayed> = page
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| matches!(fate, Fate::Sent | Fate::FailedAgain(_)))
            .map(|(letter, _)| Replayed {
                id: letter.id,
                failed_at: letter.failure.at,
            })
            .collect();
        if !dry_run && !marks.is_empty() {
            let marked = self.letters.mark_replayed(marks).await;
            marked.map_err(|error| error.to_string())?;
            failpoint::hit("replay.after_mark");
        }
        let mut stop = Ok(());
        for (letter, fate) in page.iter().zip(fates) {
            let reason = match fate {
                Fate::Sent => {
                    report.replayed += 1;
                    if !dry_run {
                        self.metrics.dead_letters_replayed.inc();
                    }
                    continue;
                }
                Fate::Gone => continue,
                Fate::NotNow(reason) => {
                    stop = Err(reason);
                    continue;
                }
                Fate::FailedAgain(reason) | Fate::Unreadable(reason) => reason,
            };
            report.failed += 1;
            if report.failures.len() < NAMED {
                let id = letter.id;
                report.failures.push(NotReplayed { id, reason });
            }
        }
        stop
    }

    /// Reads the letters and sends their events. Of an array that holds events and others, the
    /// events are sent; the letter stays for the rest.
    async fn send(&self, page: &[LetterSummary], dry_run: bool) -> Vec<Fate> {
        let read = join_all(page.iter().map(|letter| self.read(letter.id))).await;
        let mut fates = Vec::with_capacity(page.len());
        let mut letters = Vec::new();
        for (place, (letter, read)) in page.iter().zip(read).enumerate() {
            match read {
                Err(fate) => fates.push(fate),
                Ok(contents) => {
                    let bad: Vec<String> = contents.bad.into_iter().map(|bad| bad.error).collect();
                    fates.push(if bad.is_empty() {
                        Fate::Sent
                    } else {
                        Fate::Unreadable(bad.join("; "))
                    });
                    if !contents.events.is_empty() {
                        letters.push((place, letter.id, contents.events));
                    }
                }
            }
        }
        if dry_run {
            return fates;
        }
        let places: Vec<usize> = letters.iter().map(|(place, ..)| *place).collect();
        let sent = match &self.way {
            Way::Direct(accumulator) => {
                let letters = letters.into_iter().map(|(_, id, events)| (id, events));
                self.write(accumulator, letters.collect()).await
            }
            Way::Queue(publisher) => {
                let publishing = letters
                    .iter()
                    .map(|(_, id, events)| self.publish(publisher, *id, events));
                join_all(publishing).await
            }
        };
        for (place, sent) in places.into_iter().zip(sent) {
            if let Some(fate) = fates.get_mut(place)
                && !(matches!(sent, Fate::Sent) && matches!(fate, Fate::Unreadable(_)))
            {
                *fate = sent;
            }
        }
        fates
    }

    /// Reads a letter again.
    async fn read(&self, id: Uuid) -> Result<Contents, Fate> {
        match self.letters.get_letter(id).await {
            Ok(Some(letter)) => {
                let settings: Arc<Settings> = Arc::clone(&self.settings.get());
                Ok(contents::read_again(&letter, &settings))
            }
            Ok(None) => Err(Fate::Gone),
            Err(error) => Err(Fate::NotNow(error.to_string())),
        }
    }

    /// Publishes a letter's events as one frame.
    async fn publish(&self, publisher: &Publisher, letter: Uuid, events: &[Event]) -> Fate {
        let mut encoder = frame::Encoder::default();
        for event in events {
            if let Err(error) = encoder.push(event) {
                return Fate::Unreadable(error.to_string());
            }
        }
        let accounts = &self.metrics.ledgers.intake;
        accounts.take(events.len());
        let result = publisher.publish_replay(&encoder.finish(), letter).await;
        let outcome = match &result {
            Ok(()) => Outcome::Published,
            Err(_) => Outcome::Refused(Refusal::Unavailable),
        };
        events.iter().for_each(|_| accounts.settle(outcome));
        match result {
            Ok(()) => {
                self.metrics.frames_published.inc();
                Fate::Sent
            }
            Err(error) => Fate::NotNow(error.to_string()),
        }
    }

    /// Writes the events of all letters of a chunk, handed over together so that they keep their
    /// order.
    async fn write(
        &self,
        accumulator: &Mailbox<BatchAccumulator>,
        letters: Vec<(Uuid, Vec<Event>)>,
    ) -> Vec<Fate> {
        let mut all = Vec::new();
        let mut answers = Vec::with_capacity(letters.len());
        for (letter, events) in letters {
            let weight = events.iter().map(Event::weight).sum();
            let accounts = self.metrics.ledgers.intake.clone();
            let (deliveries, answer) = request::open(events, accounts, self.budget.take(weight));
            all.extend(deliveries.into_iter().map(|mut delivery| {
                delivery.letter = Some(letter);
                delivery
            }));
            answers.push(answer);
        }
        if !all.is_empty() {
            // If the accumulator crashes over the message, the tickets in it answer.
            let _ = accumulator.send(Push(all)).await;
        }
        join_all(answers.into_iter().map(async |answer| fate(answer.await))).await
    }
}

/// What became of a letter, from what became of its events.
fn fate(outcomes: Result<Vec<Outcome>, RecvError>) -> Fate {
    let outcomes = outcomes.unwrap_or_else(|_| vec![Outcome::Returned]);
    let mut fate = Fate::Sent;
    for outcome in outcomes {
        if !outcome.is_durable() {
            return Fate::NotNow("the store cannot be written now".to_owned());
        }
        if let Outcome::DeadLettered(cause) = outcome {
            fate = Fate::FailedAgain(format!("failed again: {}", cause.as_str()));
        }
    }
    fate
}

/// Letters in the next chunk: no more than a second's worth.
fn chunk(left: u64, rate: u32) -> usize {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let second = match rate {
        0 => CHUNK,
        rate => usize::try_from(rate).unwrap_or(CHUNK),
    };
    left.min(second).clamp(1, CHUNK)
}

fn page_len(page: &[LetterSummary]) -> u32 {
    u32::try_from(page.len()).unwrap_or(u32::MAX)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "{after}_{}", self.bound),
            None => write!(f, "_{}", self.bound),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (after, bound) = text.split_once('_').ok_or(())?;
        let after = match after {
            "" => None,
            after => Some(after.parse()?),
        };
        Ok(Self {
            after,
            bound: bound.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let position = |micros| LetterPosition {
            created_at: DateTime::from_timestamp_micros(micros).unwrap(),
            id: Uuid::new_v4(),
        };
        for after in [
            None,
            Some(position(-5)),
            Some(position(1_700_000_000_123_456)),
        ] {
            let cursor = Cursor {
                after,
                bound: position(7),
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "_", "1.x_2.y", "abc"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chunk_is_a_second_at_most() {
        assert_eq!(chunk(u64::MAX, 0), CHUNK);
        assert_eq!(chunk(u64::MAX, 3), 3);
        assert_eq!(chunk(2, 500), 2);
    }
}

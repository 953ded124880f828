//! Sending dead letters through the flow again, oldest first.
//!
//! Each letter is read again, sent, and marked when its events are durable: in full mode confirmed
//! by the work queue, in direct mode committed. Broken off in between, a letter is sent again by the
//! next replay under the same event ids, so nothing is lost and nothing is stored twice. One that
//! fails again comes back to the same letter, with its history.

mod cursor;
mod sending;

use crate::broker::Publisher;
use crate::config::LiveSettings;
use crate::event::budget::{Budget, Permit};
use crate::event::{Delivery, Event, Outcome};
use crate::metrics::Metrics;
use crate::store::dead_letters::{
    DeadLetterFilter, DeadLetterOrder, DeadLetterState, DeadLetterSummary, Replayed,
};
use crate::store::{DeadLetterStore, FollowerStore, StoreError};
use crate::supervision::{Lifecycle, Phase, failpoint};
use async_trait::async_trait;
pub use cursor::Cursor;
use sending::ReplayOutcome;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of dead letters in flight.
const CHUNK: usize = 32;
/// Maximum bytes of the bodies in flight; a single larger body is sent alone.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Failures that a report names.
const NAMED: usize = 20;

/// Where the events of letters become durable.
#[derive(Clone)]
pub enum ReplayTarget {
    Store,
    /// On the work queue.
    Queue(Box<Publisher>),
}

/// The way of replayed events into the flow, which the process provides.
#[async_trait]
pub trait ReplayFlow: Send + Sync {
    /// Makes deliveries of events. Their outcomes come through the receiver when all are settled.
    fn open(
        &self,
        events: Vec<Event>,
        permit: Permit,
    ) -> (Vec<Delivery>, oneshot::Receiver<Vec<Outcome>>);

    /// Hands deliveries over to be written, in their order.
    async fn write(&self, deliveries: Vec<Delivery>);
}

/// Replays letters; clones share what they are wired to.
#[derive(Clone)]
pub struct Replayer {
    pub letters: Arc<dyn DeadLetterStore>,
    /// Takes the letters of followers, whose events are in the log already.
    pub followers: Arc<dyn FollowerStore>,
    /// Where their events go.
    pub target: ReplayTarget,
    /// Their way into the flow.
    pub flow: Arc<dyn ReplayFlow>,
    /// How bodies are read, and how fast they are sent.
    pub settings: LiveSettings,
    /// The bound on bytes in the process.
    pub budget: Budget,
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
}

/// What to replay. Without a state in the filter: what is dead.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    pub filter: DeadLetterFilter,
    /// Go on behind what an earlier run has done.
    pub cursor: Option<Cursor>,
    /// At most so many letters.
    pub limit: Option<u64>,
    /// Dead letters per second; 0 is unlimited, `None` uses `dead_letters.replay_rate`.
    pub rate: Option<u32>,
    /// Read the letters, send nothing.
    pub dry_run: bool,
    /// Stop after this time.
    pub time: Option<Duration>,
}

/// A letter that was not replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotReplayed {
    pub id: Uuid,
    pub reason: String,
}

/// What a replay has done.
#[derive(Debug, Default)]
pub struct Report {
    /// Dead letters whose events are durable; in a dry run, those that would be sent.
    pub replayed: u64,
    /// Dead letters that cannot be decoded or failed again at once.
    pub failed: u64,
    /// The first of those.
    pub failures: Vec<NotReplayed>,
    /// Where to go on; `None` when there is nothing left.
    pub next: Option<Cursor>,
    /// Why it stopped before its end: the letters from here on could not be sent now.
    pub stopped: Option<String>,
}

impl Replayer {
    /// Replays. `progress` is called after each chunk.
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
        filter.state.get_or_insert(DeadLetterState::Dead);
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
            let page = match self.page(&filter, cursor, chunk_size(left, rate)).await {
                Ok(page) => page,
                Err(error) => {
                    report.stopped = Some(error.to_string());
                    break;
                }
            };
            let Some(last) = page.last().map(DeadLetterSummary::position) else {
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
        filter: &DeadLetterFilter,
    ) -> Result<Option<Cursor>, StoreError> {
        if replay.cursor.is_some() {
            return Ok(replay.cursor);
        }
        let newest = self
            .letters
            .list_letters(filter, DeadLetterOrder::Newest, None, 1)
            .await?;
        Ok(newest.first().map(|newest| Cursor {
            after: None,
            bound: newest.position(),
        }))
    }

    async fn page(
        &self,
        filter: &DeadLetterFilter,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<DeadLetterSummary>, StoreError> {
        let mut page = self
            .letters
            .list_letters(filter, DeadLetterOrder::Oldest, cursor.after, limit)
            .await?;
        let mut bytes = 0;
        let within = page.iter().position(|letter| {
            let first = bytes == 0;
            bytes += letter.body_bytes;
            letter.position() > cursor.bound || (bytes > CHUNK_BYTES && !first)
        });
        page.truncate(within.unwrap_or(page.len()));
        Ok(page)
    }

    /// Sends the letters of a page and marks them. The error is why it has to stop; some of them
    /// may be sent all the same.
    async fn chunk(
        &self,
        page: &[DeadLetterSummary],
        dry_run: bool,
        report: &mut Report,
    ) -> Result<(), String> {
        let fates = self.send(page, dry_run).await;
        failpoint::hit("replay.after_send");
        let marks: Vec<Replayed> = page
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| matches!(fate, ReplayOutcome::Sent | ReplayOutcome::FailedAgain(_)))
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
                ReplayOutcome::Sent | ReplayOutcome::HandedOver => {
                    report.replayed += 1;
                    if !dry_run {
                        self.metrics.dead_letters_replayed.inc();
                    }
                    continue;
                }
                ReplayOutcome::Gone => continue,
                ReplayOutcome::NotNow(reason) => {
                    stop = Err(reason);
                    continue;
                }
                ReplayOutcome::FailedAgain(reason) | ReplayOutcome::Unreadable(reason) => reason,
            };
            report.failed += 1;
            if report.failures.len() < NAMED {
                let id = letter.id;
                report.failures.push(NotReplayed { id, reason });
            }
        }
        stop
    }
}

/// Number of dead letters in the next chunk: at most those of one second.
fn chunk_size(left: u64, rate: u32) -> usize {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let second = match rate {
        0 => CHUNK,
        rate => usize::try_from(rate).unwrap_or(CHUNK),
    };
    left.min(second).clamp(1, CHUNK)
}

fn page_len(page: &[DeadLetterSummary]) -> u32 {
    u32::try_from(page.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_second_at_most() {
        assert_eq!(chunk_size(u64::MAX, 0), CHUNK);
        assert_eq!(chunk_size(u64::MAX, 3), 3);
        assert_eq!(chunk_size(2, 500), 2);
    }
}

//! Sending dead letters through the flow again, oldest first.
//!
//! Each letter is read again, sent, and marked when its events are durable: in full mode confirmed
//! by the work queue, in direct mode committed. Broken off in between, a letter is sent again by the
//! next replay under the same event ids, so nothing is lost and nothing is stored twice. One that
//! fails again comes back to the same letter, with its history.

mod cursor;
mod sending;

use crate::actors::BatchAccumulator;
use crate::broker::Publisher;
use crate::config::LiveSettings;
use crate::metrics::Metrics;
use crate::store::dead_letters::{LetterFilter, LetterOrder, LetterState, LetterSummary, Replayed};
use crate::store::{DeadLetterStore, StoreError};
use crate::supervision::{Budget, Lifecycle, Mailbox, Phase, failpoint};
pub use cursor::Cursor;
use sending::Fate;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Letters under way at once ...
const CHUNK: usize = 32;
/// ... and bytes of their bodies, which are in memory, unless a single one is larger.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_second_at_most() {
        assert_eq!(chunk(u64::MAX, 0), CHUNK);
        assert_eq!(chunk(u64::MAX, 3), 3);
        assert_eq!(chunk(2, 500), 2);
    }
}

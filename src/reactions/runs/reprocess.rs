//! Making ended runs again, those of the oldest events first.

use super::RunStatus;
use super::undecided::unreadable;
use crate::reactions::selection::Selection;
use crate::store::commit_log::Position;
use crate::store::followers::LaneSpec;
use crate::store::reactions::ReactionRecord;
use crate::store::runs::{ReopenedRun, RunFilter, RunOrder, RunRecord};
use crate::store::{Store, StoreError};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Runs whose events are in memory at a time.
const CHUNK: usize = 64;
/// Positions, generations and times of a cursor have at most so many digits.
const DIGITS: usize = 18;

/// Which runs to make again, and how.
#[derive(Debug, Clone)]
pub struct Reprocessing {
    /// `Failed` or `Success`.
    pub status: RunStatus,
    /// Only those of events of this type.
    pub event_type: Option<String>,
    /// Only those of events that the log took in at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those of events that the log took in before this time.
    pub to: Option<DateTime<Utc>>,
    /// At most so many.
    pub limit: Option<u64>,
    /// So many become due in a second; 0 is unlimited.
    pub rate: u32,
    /// Read them, change nothing.
    pub dry_run: bool,
    /// Go on where an earlier part has ended.
    pub cursor: Option<ReprocessCursor>,
    /// Stop after this time.
    pub time: Option<Duration>,
}

/// How far a reprocessing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReprocessCursor {
    /// The generation of the log that the positions belong to.
    pub generation: i64,
    after: Position,
    /// The end of the log when it began.
    until: Position,
    /// When the next run is to be due, in microseconds since 1970.
    due: i64,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Reprocessed {
    /// Runs that match.
    pub matched: u64,
    /// Runs that will be made again; in a dry run, those that would be.
    pub reprocessed: u64,
    /// Runs whose events the log no longer has. With an event type none: theirs is not known.
    pub gone: u64,
    /// Where to go on; `None` when there is nothing left.
    pub next: Option<ReprocessCursor>,
    /// Why it ended before its time, with some of the work done.
    pub stopped: Option<String>,
}

/// Makes runs again. Each gets as many attempts as its first time. `go_on` is asked after each part of the work.
///
/// # Errors
/// The store's, if nothing was done before. What fails later stops it, and the report says so.
pub async fn reprocess(
    store: &dyn Store,
    reaction: &ReactionRecord,
    what: &Reprocessing,
    mut go_on: impl FnMut(&Reprocessed) -> bool,
) -> Result<Reprocessed, StoreError> {
    let began = Instant::now();
    let mut report = Reprocessed::default();
    let mut cursor = match what.cursor {
        Some(cursor) => cursor,
        None => begin(store, what).await?,
    };
    let Some(keys) = Keys::of(store, reaction).await? else {
        return Ok(report);
    };
    loop {
        report.next = Some(cursor);
        let left = what
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(report.reprocessed));
        if left == 0 || what.time.is_some_and(|time| began.elapsed() >= time) {
            return Ok(report);
        }
        let part = Part {
            store,
            reaction: reaction.id,
            what,
            keys: &keys,
        };
        let before = report.clone();
        match part.chunk(cursor, left, &mut report).await {
            Ok(Some(next)) => cursor = next,
            Ok(None) => {
                report.next = None;
                return Ok(report);
            }
            Err(error) if before.reprocessed == 0 => return Err(error),
            Err(error) => {
                return Ok(Reprocessed {
                    stopped: Some(error.to_string()),
                    ..before
                });
            }
        }
        if !go_on(&report) {
            report.next = Some(cursor);
            return Ok(report);
        }
    }
}

/// What has ended when this is asked for is made again, and not what ends later.
async fn begin(store: &dyn Store, what: &Reprocessing) -> Result<ReprocessCursor, StoreError> {
    let end = store.end().await?;
    Ok(ReprocessCursor {
        generation: store.generation().await?,
        after: match what.from {
            Some(from) => store.position_at(from).await?,
            None => Position::START,
        },
        until: match what.to {
            Some(to) => store.position_at(to).await?.min(end),
            None => end,
        },
        due: Utc::now().timestamp_micros(),
    })
}

/// The keys of events by the newest declaration, as those of the events to come.
struct Keys {
    selection: Selection,
    spec: LaneSpec,
}

impl Keys {
    async fn of(store: &dyn Store, reaction: &ReactionRecord) -> Result<Option<Self>, StoreError> {
        let held = store.held_at(&reaction.name, Position::MAX).await?;
        held.map(|held| {
            Ok(Self {
                selection: Selection::new(&held.spec).map_err(unreadable)?,
                spec: held.spec,
            })
        })
        .transpose()
    }
}

/// What each chunk of a reprocessing is made with.
struct Part<'a> {
    store: &'a dyn Store,
    reaction: i32,
    what: &'a Reprocessing,
    keys: &'a Keys,
}

impl Part<'_> {
    /// Takes the next runs, at most `limit`. Returns where to go on.
    async fn chunk(
        &self,
        cursor: ReprocessCursor,
        limit: u64,
        report: &mut Reprocessed,
    ) -> Result<Option<ReprocessCursor>, StoreError> {
        let filter = RunFilter {
            reaction: self.reaction,
            states: self.what.status.states().collect(),
            after: cursor.after,
            until: cursor.until,
        };
        let page = self
            .store
            .list_runs(&filter, RunOrder::Oldest, CHUNK)
            .await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        let mut next = ReprocessCursor {
            after: last.position,
            ..cursor
        };
        let chosen = self.choose(&page, limit, &mut next, report).await?;
        if self.what.dry_run {
            report.reprocessed += chosen.len() as u64;
        } else if !chosen.is_empty() {
            report.reprocessed += self.store.reopen_runs(self.reaction, chosen).await?;
        }
        Ok(Some(next))
    }

    /// Those runs of a page that are to be made again.
    async fn choose(
        &self,
        page: &[RunRecord],
        limit: u64,
        next: &mut ReprocessCursor,
        report: &mut Reprocessed,
    ) -> Result<Vec<ReopenedRun>, StoreError> {
        let ids: Vec<_> = page.iter().map(|run| run.event_id).collect();
        let events = self.store.events_of(&ids).await?;
        let mut events: HashMap<_, _> = events
            .into_iter()
            .map(|event| (event.event_id, event))
            .collect();
        let mut chosen = Vec::new();
        let now = Utc::now().timestamp_micros();
        for run in page {
            let Some(event) = events.remove(&run.event_id) else {
                if self.what.event_type.is_none() {
                    report.matched += 1;
                    report.gone += 1;
                }
                continue;
            };
            if let Some(wanted) = &self.what.event_type
                && *wanted != event.event_type
            {
                continue;
            }
            report.matched += 1;
            let key = self.keys.selection.key(&event);
            chosen.push(ReopenedRun {
                position: run.position,
                order_key: key.clone().filter(|_| self.keys.spec.ordered),
                unique_key: key.filter(|_| self.keys.spec.unique),
                event,
                after: Duration::from_micros(next.due.saturating_sub(now).max(0).unsigned_abs()),
            });
            if let Some(pause) = 1_000_000_i64.checked_div(self.what.rate.into()) {
                next.due = next.due.max(now).saturating_add(pause);
            }
            if chosen.len() as u64 >= limit {
                next.after = run.position;
                break;
            }
        }
        Ok(chosen)
    }
}

impl fmt::Display for ReprocessCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            after,
            until,
            due,
        } = self;
        write!(f, "{generation}-{after}-{until}-{due}")
    }
}

impl FromStr for ReprocessCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Vec<i64> = text
            .split('-')
            .map(|part| match part.len() <= DIGITS {
                true => part.parse().map_err(|_| ()),
                false => Err(()),
            })
            .collect::<Result<_, _>>()?;
        match numbers.as_slice() {
            [generation, after, until, due] => Ok(Self {
                generation: *generation,
                after: Position(*after),
                until: Position(*until),
                due: *due,
            }),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let cursor = ReprocessCursor {
            generation: 2,
            after: Position(4_095),
            until: Position(8_191),
            due: 1_700_000_000_123_456,
        };
        assert_eq!(cursor.to_string(), "2-4095-8191-1700000000123456");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            "1-2-3",
            "1-2-3-4-5",
            "1-2-3-x",
            "1-2-3-1234567890123456789",
        ] {
            assert!(text.parse::<ReprocessCursor>().is_err(), "{text}");
        }
    }
}

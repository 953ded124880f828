//! What a lane reads, and what follows for each event: it waits for its start, goes into the queue, or has its outcome.

use super::fetch::{Candidate, Fetched};
use super::lane::Lane;
use super::outcomes::FirstOutcome;
use crate::store::StoreError;
use crate::store::reactions::{Due, Ending, QueuedRun};
use chrono::Utc;
use futures::FutureExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most slots of a window, stored ones behind a slow one included.
const WINDOW: usize = 10_000;
/// Least number of events that are read ahead: a read costs as much as some hundred events.
const AHEAD: usize = 4_000;
/// By how much the clocks of this process and the database may differ. What is due later than so long ago enters the
/// queue, where the database's clock decides.
const CLOCKS: chrono::Duration = chrono::Duration::minutes(5);
/// How often progress over events that do not concern the lane is taken in.
const QUIET: Duration = Duration::from_millis(500);

impl Lane {
    fn has_room(&self) -> bool {
        self.window.len() < WINDOW && self.window.waiting() < self.ahead() / 2
    }

    /// How many events are read before they can be started.
    fn ahead(&self) -> usize {
        (self.plan.reaction.concurrency as usize * 4).max(AHEAD)
    }

    /// Begins to read, if there is something to read and room for it.
    pub(super) fn fetch(&mut self) {
        let now = Instant::now();
        if self.fetching.is_some() || !self.has_room() || self.fetch_at > now {
            return;
        }
        let after = self.window.read_to();
        if after >= self.record.until {
            // What it reacts to changes here.
            if self.window.len() == 0 {
                self.leave();
            }
            return;
        }
        let (end, quiet) = self.log.end(&self.record.types, after);
        let is_other = self
            .record
            .spec
            .as_ref()
            .is_some_and(|spec| self.source.lane >= spec.lanes);
        if after >= end {
            return;
        }
        let quiet_to = (quiet || is_other).then_some(end);
        if quiet_to.is_some() {
            // Now and then, and not with each commit.
            if self.quiet_at > now {
                return;
            }
            self.quiet_at = now + QUIET;
        }
        self.fetches += 1;
        let ahead = self.ahead();
        let limit = ahead - self.window.waiting().min(ahead / 2);
        let fetching = Arc::clone(&self.source).fetch(self.fetches, after, limit, quiet_to);
        self.fetching = Some(fetching.boxed());
    }

    pub(super) fn fetched(&mut self, fetched: Result<Fetched, StoreError>) {
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let pause = self.trouble("the log cannot be read", &error);
                self.fetch_at = Instant::now() + pause;
                return;
            }
        };
        self.backoff.reset();
        if fetched.changed {
            return self.leave();
        }
        // Keys that were stored before the read began are among those that it has found, if they are queued still.
        self.queued.retain(|_, read| *read >= fetched.number);
        let Fetched {
            candidates,
            decided,
            queued,
            read_to,
            ..
        } = fetched;
        let known = |candidate: &Candidate| decided.contains(&candidate.logged.position);
        for candidate in candidates.into_iter().filter(|candidate| !known(candidate)) {
            self.admit(candidate, &queued);
        }
        self.window.read(read_to);
    }

    /// Decides whether an event is started, queued, or has its outcome.
    fn admit(&mut self, candidate: Candidate, queued: &HashSet<String>) {
        let Candidate { logged, key, error } = candidate;
        let (position, event) = (logged.position, Arc::new(logged.event));
        let unstarted = |ending, error| FirstOutcome::unstarted(position, &event, ending, error);
        if let Some(error) = error {
            return self.decide(key, unstarted(Ending::Failed, error.to_string()));
        }
        let is_queued = key
            .as_ref()
            .is_some_and(|key| queued.contains(key) || self.queued.contains_key(key));
        if let Some(like) = key.as_ref().filter(|_| self.outcomes.keys.is_unique)
            && (is_queued || self.window.is_open(like))
        {
            let reason = format!("a run with the same unique key {like:?} is open");
            return self.decide(key, unstarted(Ending::Cancelled, reason));
        }
        let due = match (&self.plan.at, self.plan.reaction.delay) {
            (Some(at), _) => match at.time(&event) {
                Ok(due) => due,
                Err(error) => {
                    return self.decide(key, unstarted(Ending::Failed, error.to_string()));
                }
            },
            (None, Some(delay)) => chrono::Duration::from_std(delay)
                .ok()
                .and_then(|delay| event.received_at.checked_add_signed(delay)),
            (None, None) => None,
        };
        let queue = |due, alone| {
            FirstOutcome::Queued(QueuedRun {
                position,
                event: Arc::clone(&event),
                order_key: key.clone().filter(|_| self.outcomes.keys.is_ordered),
                unique_key: key.clone().filter(|_| self.outcomes.keys.is_unique),
                due,
                attempts: 0,
                alone,
                history: Vec::new(),
            })
        };
        if let Some(due) = due.filter(|due| *due > Utc::now() - CLOCKS) {
            let scheduled = queue(Due::At(due), false);
            return self.decide(key, scheduled);
        }
        if self.outcomes.keys.is_ordered && is_queued {
            let behind = queue(Due::After(Duration::ZERO), false);
            return self.decide(key, behind);
        }
        let is_first = !self.outcomes.keys.is_ordered
            || key.as_ref().is_none_or(|key| !self.window.is_open(key));
        let (begun, up_to) = self.isolate;
        if begun > 0 && position <= up_to && is_first {
            self.isolate.0 = begun - 1;
            // Until it is stored, the next process isolates it again, and not what would be started in its place.
            self.started.insert(position);
            let alone = queue(Due::After(Duration::ZERO), true);
            return self.decide(key, alone);
        }
        self.window.wait(position, key, event);
    }

    /// An event has its outcome without having been started.
    fn decide(&mut self, key: Option<String>, outcome: FirstOutcome) {
        // What has ended is not open for others of its key.
        let key = key.filter(|_| matches!(outcome, FirstOutcome::Queued(_)));
        if let Some(key) = &key {
            self.queued.insert(key.clone(), u64::MAX);
        }
        self.window.decide(outcome.position(), key);
        self.outcomes.push(outcome);
    }
}

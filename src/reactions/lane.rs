//! A lane at work: what is read, started, decided and stored, one thing after the other.

use super::attempts::{Attempted, Attempts, Started};
use super::decision::Decision;
use super::fetch::{Fetched, Source};
use super::oldest_due::OldestDue;
use super::outcomes::{FirstOutcome, Outcomes, StoredStep};
use super::queue::{Queue, QueueNews, Taken, some};
use super::rate::Rate;
use super::reaction::Plan;
use super::window::Window;
use crate::event::StoredEvent;
use crate::followers::driver::{DriveError, Interruption, LogView};
use crate::followers::lag::FollowerMetrics;
use crate::maintenance::leader::Leadership;
use crate::metrics::Metrics;
use crate::store::commit_log::Position;
use crate::store::followers::{FollowerRecord, FollowerState};
use crate::store::reactions::{Due, QueuedRun, ReopenedKey};
use crate::store::transaction::EffectError;
use crate::store::{ErrorKind, Store, StoreError};
use crate::supervision::{Backoff, failpoint};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lane at work.
pub(super) struct Lane {
    pub(super) plan: Arc<Plan>,
    pub(super) record: FollowerRecord,
    pub(super) log: LogView,
    pub(super) leadership: Leadership,
    pub(super) store: Arc<dyn Store>,
    pub(super) source: Arc<Source>,
    pub(super) window: Window,
    pub(super) attempts: Attempts,
    pub(super) outcomes: Outcomes,
    pub(super) queue: Queue,
    pub(super) rate: Rate,
    /// How many of the first events up to a position may have been started by a process that ended by that.
    pub(super) isolate: (u32, Position),
    pub(super) fetching: Option<BoxFuture<'static, Result<Fetched, StoreError>>>,
    pub(super) fetches: u64,
    /// Not to be read before.
    pub(super) fetch_at: Instant,
    /// What does not concern the lane is not to be passed over before.
    pub(super) quiet_at: Instant,
    /// Which keys have runs that were opened again.
    pub(super) reopening: Option<BoxFuture<'static, Result<Vec<ReopenedKey>, StoreError>>>,
    /// Behind which of these runs to look the next time.
    pub(super) reopened_after: Position,
    /// Whether the last claim has seen such runs.
    pub(super) has_reopened: bool,
    pub(super) checking: Option<BoxFuture<'static, Result<Option<FollowerRecord>, StoreError>>>,
    /// Keys whose runs this lane has handed to the queue: during which read, or not stored yet.
    pub(super) queued: HashMap<String, u64>,
    /// First attempts that are started or isolated, and not stored.
    pub(super) started: HashSet<Position>,
    /// Attempts of claimed runs.
    pub(super) claims: usize,
    /// Nothing is begun any more.
    pub(super) leaving: bool,
    pub(super) backoff: Backoff,
    pub(super) metrics: Arc<Metrics>,
    pub(super) oldest_due: OldestDue,
}

impl Lane {
    /// Works until the record has changed or the process drains, and everything that was begun has its outcome.
    pub(super) async fn run(
        mut self,
        mut interruption: Interruption,
        metrics: &FollowerMetrics,
    ) -> Result<(), DriveError> {
        // What a former process has begun is isolated again if this one ends before all of it is stored.
        let begun = self.plan.reaction.concurrency.max(self.record.begun);
        match self.outcomes.begin(begun).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(not_stored(error)),
        }
        loop {
            if !self.leaving {
                self.fetch();
                self.start();
                self.queue.look(self.rate.permits(self.unused()));
            }
            self.queue.finish();
            let (window, outcomes) = (&self.window, &mut self.outcomes);
            let low = window.low();
            outcomes.released.retain(|key| !window.is_open(key));
            outcomes.store(begun, low, |stored| {
                window.low_behind(&stored.iter().map(FirstOutcome::position).collect())
            });
            if self.leaving && self.is_idle() {
                return self.outcomes.end(low).await.map_err(not_stored);
            }
            let due = self.due_at(low);
            tokio::select! {
                fetched = some(&mut self.fetching) => {
                    self.fetching = None;
                    self.fetched(fetched);
                }
                attempted = self.attempts.ended() => {
                    self.attempted(attempted);
                    // So that one step stores them together.
                    while let Some(attempted) = self.attempts.another() {
                        self.attempted(attempted);
                    }
                }
                step = self.outcomes.stored() => {
                    self.stored(step);
                    metrics.moved_to(self.window.low());
                }
                news = self.queue.news() => self.queue_news(news),
                found = some(&mut self.reopening) => {
                    self.reopening = None;
                    self.reopened(found);
                }
                record = some(&mut self.checking) => {
                    self.checking = None;
                    self.checked(record);
                }
                () = self.log.news(), if !self.leaving => {}
                () = interruption.comes(), if !self.leaving && self.checking.is_none() => {
                    if interruption.is_drain() {
                        self.leave();
                    } else {
                        // The queue may have what was put into it by command.
                        self.queue.expect(Duration::ZERO);
                        let (store, name) = (Arc::clone(&self.store), self.record.name.clone());
                        self.checking = Some(async move { store.follower(&name).await }.boxed());
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// When something is to be done although nothing has happened.
    fn due_at(&self, low: Position) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        let stores = [self.outcomes.due_at(low), self.queue.finish_at()];
        let outcome = stores.into_iter().flatten().min();
        if self.leaving {
            return outcome.unwrap_or(far);
        }
        let now = Instant::now();
        let is_free = self.unused() > 0 && !self.queue.is_claiming();
        let claim = is_free.then(|| self.queue.due_at().max(self.rate.next()));
        let later = [self.rate.next(), self.fetch_at, self.quiet_at];
        outcome
            .into_iter()
            .chain(claim)
            .chain(later.into_iter().filter(|at| *at > now))
            .fold(far, Instant::min)
    }

    /// How many more attempts there may be.
    fn unused(&self) -> usize {
        let used = self.started.len() + self.claims + self.queue.unstored();
        (self.plan.reaction.concurrency as usize).saturating_sub(used)
    }

    /// How many first attempts may be started.
    fn free(&self) -> usize {
        self.unused().saturating_sub(self.queue.kept_free())
    }

    fn is_idle(&self) -> bool {
        self.attempts.len() == 0
            && self.outcomes.unstored() == 0
            && self.queue.unstored() == 0
            && !self.queue.is_claiming()
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.fetching = None;
        self.checking = None;
        self.reopening = None;
        self.outcomes.released.clear();
        self.queue.leave();
    }

    pub(super) fn trouble(&mut self, what: &str, error: &StoreError) -> Duration {
        let pause = self.backoff.next_pause();
        tracing::warn!(
            follower = self.record.name,
            kind = error.kind().as_str(),
            %error,
            again_in_ms = pause.as_millis() as u64,
            "reaction waits: {what}"
        );
        pause
    }

    /// Starts what may be started.
    fn start(&mut self) {
        while self.rate.permits(self.free()) > 0 && self.leadership.is_current() {
            let Some((position, event)) = self.window.start() else {
                return;
            };
            self.rate.charge();
            self.started.insert(position);
            let of = Started {
                position,
                event,
                attempt: 1,
                counted: 1,
                token: None,
                until: None,
            };
            self.attempts.start(of, None);
        }
    }

    fn attempted(&mut self, mut attempted: Attempted) {
        let name = [&*self.plan.reaction.name];
        if attempted.result.is_some() {
            let seconds = self
                .metrics
                .reaction_attempt_seconds
                .with_label_values(&name);
            seconds.observe(attempted.took.as_secs_f64());
        }
        let decision = match attempted.of.token {
            Some(token) => {
                self.claims = self.claims.saturating_sub(1);
                self.queue.attempted(attempted, token)
            }
            None => {
                let position = attempted.of.position;
                let Some(result) = attempted.result.take() else {
                    self.started.remove(&position);
                    self.window.not_started(position, attempted.of.event);
                    return;
                };
                let key = self.window.key(position);
                let decision =
                    self.outcomes
                        .attempted(&attempted, result, key.as_ref(), &self.plan.reaction);
                if let (Decision::Again { .. }, Some(key)) = (&decision, key) {
                    self.queued.insert(key, u64::MAX);
                }
                decision
            }
        };
        let labels = [&*self.plan.reaction.name, decision.as_str()];
        self.metrics
            .reaction_attempts
            .with_label_values(&labels)
            .inc();
    }

    fn stored(&mut self, step: StoredStep) {
        if step.stored.is_none() {
            match &step.error {
                Some(EffectError::Store(error)) if !step.failed => {
                    tracing::warn!(follower = self.record.name, %error, "some outcomes are stored later");
                }
                Some(EffectError::Store(error)) => {
                    let pause = self.trouble("outcomes cannot be stored", error);
                    self.outcomes.hold(pause);
                }
                _ => {
                    let pause = self.backoff.next_pause();
                    self.outcomes.hold(pause);
                }
            }
            return;
        }
        self.backoff.reset();
        failpoint::hit("reaction.stored");
        if self.has_reopened && !step.outcomes.is_empty() {
            // Their keys may be free.
            self.queue.expect(Duration::ZERO);
        }
        for outcome in step.outcomes {
            let (position, is_queued) = (
                outcome.position(),
                matches!(outcome, FirstOutcome::Queued(_)),
            );
            self.started.remove(&position);
            let key = self.window.key(position);
            if let FirstOutcome::Queued(QueuedRun {
                due: Due::After(after),
                ..
            }) = &outcome
            {
                self.queue.expect(*after);
            }
            if let (true, Some(key)) = (is_queued, &key) {
                // A read that has begun by now may not have seen it.
                self.queued.insert(key.clone(), self.fetches);
            }
            let is_followed = is_queued && self.outcomes.keys.is_ordered;
            for (position, event) in self.window.stored(position, is_followed) {
                if let Some(key) = key.clone() {
                    self.join_queue(position, key, event);
                }
            }
        }
    }

    /// Hands an event to the queue, where others of its order key are.
    pub(super) fn join_queue(&mut self, position: Position, key: String, event: Arc<StoredEvent>) {
        let unique_key = Some(key.clone()).filter(|_| self.outcomes.keys.is_unique);
        self.outcomes.push(FirstOutcome::Queued(QueuedRun {
            position,
            event,
            order_key: Some(key),
            unique_key,
            due: Due::After(Duration::ZERO),
            attempts: 0,
            alone: false,
            history: Vec::new(),
        }));
    }

    fn queue_news(&mut self, news: QueueNews) {
        match news {
            QueueNews::Taken(Ok(taken)) => self.taken(taken),
            QueueNews::Taken(Err(error)) | QueueNews::Finished(Err(error)) => {
                let pause = self.trouble("the queue cannot be used", &error);
                self.queue.rest(pause);
            }
            QueueNews::Refused(error) => {
                tracing::warn!(follower = self.record.name, %error, "some outcomes are stored later");
            }
            QueueNews::Finished(Ok(())) => {
                self.backoff.reset();
                if self.outcomes.keys.is_ordered || self.has_reopened {
                    // The next ones of the keys are due.
                    self.queue.expect(Duration::ZERO);
                }
            }
            QueueNews::Turn => {}
        }
    }

    fn taken(&mut self, taken: Taken) {
        let Taken {
            claimed,
            until,
            mut turn,
        } = taken;
        self.oldest_due.set(claimed.overdue);
        self.has_reopened = claimed.reopened;
        if claimed.reopened {
            self.look_for_reopened();
        }
        for run in claimed.runs {
            if let Some(started) = self.queue.admit(run, until) {
                self.claims += 1;
                self.rate.charge();
                self.attempts.start(started, turn.take());
            }
        }
    }

    fn checked(&mut self, record: Result<Option<FollowerRecord>, StoreError>) {
        match record {
            Ok(Some(record))
                if record.revision == self.record.revision
                    && record.state == FollowerState::Running => {}
            Ok(_) => self.leave(),
            Err(error) => {
                tracing::debug!(follower = self.record.name, %error, "its record cannot be read");
            }
        }
    }
}

fn not_stored(error: EffectError) -> DriveError {
    let error = match error {
        EffectError::Store(error) => error,
        EffectError::Refused(message) => StoreError::new(ErrorKind::Transient, message),
    };
    DriveError {
        what: "its position cannot be stored",
        error,
    }
}

//! The write of one batch: as a whole if possible, else in ever smaller parts until each row that
//! cannot be written is alone.

use super::writer_params::DbWriterParams;
use crate::event::{Batch, CallerMode, Cause, Delivery, Lane, Outcome, PendingAck, Rows, Trigger};
use crate::retry::retry_supervisor::Failed;
use crate::retry::{Action, FailureContext, policy};
use crate::store::leases::Fenced;
use crate::store::{RowOutcome, StoreError};
use crate::supervision::{Backoff, failpoint};
use chrono::Utc;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A batch and what is still to be done with it.
pub(super) struct BatchWrite {
    params: DbWriterParams,
    /// What keeps the order of these events; `None` without an order.
    lane: Option<Lane>,
    acks: Vec<Option<PendingAck>>,
    trigger: Trigger,
    started: Instant,
    backoff: Backoff,
    /// Runs of rows still to be written; the next one is last.
    parts: Vec<Rows>,
    /// Rows that failed alone.
    bad_rows: usize,
    /// Rewrites after a lock that ended, which spend no attempt.
    free_rewrites: u32,
}

impl BatchWrite {
    pub(super) fn new(params: DbWriterParams, batch: Batch) -> Self {
        let parts = vec![Rows::all(batch.events)];
        Self {
            params,
            lane: batch
                .acks
                .first()
                .and_then(|ack| ack.ticket.lane().cloned()),
            acks: batch.acks.into_iter().map(Some).collect(),
            trigger: batch.trigger,
            started: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(2)),
            parts,
            bad_rows: 0,
            free_rewrites: 0,
        }
    }

    /// Writes until every ticket is settled, handed over, or dropped. Returns the number of rows that
    /// failed alone.
    pub(super) async fn run(mut self) -> usize {
        while let Some(rows) = self.parts.pop() {
            let Some(rows) = self.still_open(rows) else {
                continue;
            };
            let began = Instant::now();
            let result = self.write(rows.clone()).await;
            let label = match &result {
                Ok(_) => "ok",
                Err(error) => error.label(),
            };
            self.params
                .metrics
                .store_write
                .with_label_values(&[label])
                .observe(began.elapsed().as_secs_f64());
            match result {
                Ok(Fenced::Done(outcomes)) => {
                    failpoint::hit("db_writer.after_commit");
                    self.params.commits.raise();
                    self.params.breaker.succeeded();
                    self.backoff.reset();
                    self.settle(&rows, &outcomes);
                    self.log_written(rows.len(), began);
                }
                Ok(Fenced::Lost) => {
                    tracing::warn!(
                        events = self.acks.iter().flatten().count(),
                        "another process has taken over what these events are written for; they return to their source"
                    );
                    break;
                }
                Err(error) => {
                    if !self.failed(rows, error).await {
                        break;
                    }
                }
            }
        }
        self.bad_rows
    }

    /// The rows, if all may still be written. Rows whose channel has closed are dropped, since the
    /// broker delivers them again; a run with both kinds is divided.
    fn still_open(&mut self, rows: Rows) -> Option<Rows> {
        let run = rows.start()..rows.start() + rows.len();
        let acks = self.acks.get_mut(run).unwrap_or_default();
        let is_open =
            |ack: &&mut Option<PendingAck>| ack.as_ref().is_some_and(|ack| ack.ticket.is_open());
        let open = acks.iter_mut().filter(is_open).count();
        if open == rows.len() {
            return Some(rows);
        }
        if open > 0
            && let Some((front, back)) = rows.halves()
        {
            self.parts.extend([back, front]);
            return None;
        }
        acks.fill_with(|| None);
        tracing::info!(
            events = rows.len(),
            "the channel of these events has closed; the broker delivers them again"
        );
        None
    }

    /// Writes rows. A panic of the code that does it and a write without end are errors like others
    /// here, so that one event cannot take its writer with it.
    async fn write(&self, rows: Rows) -> Result<Fenced<Vec<RowOutcome>>, StoreError> {
        let store = &self.params.store;
        // The semaphore is never closed, and a write without a turn would do no harm.
        let _turn = self.params.turns.acquire().await;
        let writing = AssertUnwindSafe(async {
            for event in rows.iter() {
                failpoint::hit_part("db_writer.event", &event.event_type).await;
            }
            match &self.lane {
                None => store.write(rows).await.map(Fenced::Done),
                Some(lane) => store.write_in_lane(rows, lane).await,
            }
        })
        .catch_unwind();
        match tokio::time::timeout(self.params.write_timeout, writing).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => {
                let message = "the code that writes it panicked";
                Err(StoreError::transient(Cause::Panic, message))
            }
            Err(_) => {
                let message = format!("not written within {:?}", self.params.write_timeout);
                Err(StoreError::transient(Cause::Timeout, message))
            }
        }
    }

    /// Does what the policy says about rows that could not be written. `false` ends the batch:
    /// what is left of it returns to its source.
    async fn failed(&mut self, rows: Rows, mut error: StoreError) -> bool {
        let params = &self.params;
        let lane = self.lane.as_ref().map(|lane| lane.key);
        let mut lane_is_held = false;
        if policy::needs_probe(&error) {
            let began = Instant::now();
            match params.store.write_probe(&rows, lane).await {
                Err(probe) => {
                    error = policy::with_failed_probe(probe);
                    // Behind the lock of another replica only the rows of this lane wait.
                    lane_is_held =
                        lane.is_some() && params.store.write_probe(&rows, None).await.is_ok();
                }
                Ok(()) if policy::lock_has_ended(began.elapsed(), self.free_rewrites) => {
                    self.free_rewrites += 1;
                    self.parts.push(rows);
                    return true;
                }
                Ok(()) => {}
            }
        }
        if policy::opens_breaker(&error) && !lane_is_held {
            params.breaker.failed();
        }
        let first = self.acks.get(rows.start()).and_then(Option::as_ref);
        let context = FailureContext {
            alone: rows.len() == 1,
            caller_waits: self.caller_waits(&rows),
            late: self.started.elapsed() >= params.ingest_timeout,
            store_up: params.breaker.is_closed(),
            ordered: lane.is_some(),
            attempts: first.map_or(0, |ack| ack.attempts),
        };
        let action = policy::action(&error, &context, &params.attempts);
        if context.alone && !matches!(action, Action::Pause | Action::TryAgain) {
            self.bad_rows += 1;
        }
        log_failed(&rows, &error, action);
        match action {
            Action::Pause => {
                self.parts.push(rows);
                return self.wait_for_store().await;
            }
            Action::TryAgain => {
                tokio::time::sleep(self.backoff.next_pause()).await;
                self.parts.push(rows);
            }
            Action::Refuse => self.refuse(&rows),
            Action::Isolate => {
                if let Some((front, back)) = rows.halves() {
                    // The front half is written first, so that `id`s keep to the order of arrival.
                    self.parts.extend([back, front]);
                }
            }
            Action::RetryHere(delay) => return self.retry_here(rows, delay).await,
            Action::RetryLater(delay) => self.hand_over(&rows, error, Some(delay)).await,
            Action::DeadLetter => self.hand_over(&rows, error, None).await,
        }
        true
    }

    fn refuse(&mut self, rows: &Rows) {
        for ack in (0..rows.len()).filter_map(|offset| self.take(rows, offset)) {
            ack.ticket.settle(Outcome::Refused);
        }
    }

    /// Spends an attempt of a row, and writes it again after a pause. `false` when its shard is
    /// given up meanwhile.
    async fn retry_here(&mut self, row: Rows, delay: Duration) -> bool {
        const CHECK: Duration = Duration::from_millis(500);
        if let Some(Some(ack)) = self.acks.get_mut(row.start()) {
            ack.attempts = ack.attempts.saturating_add(1);
        }
        let since = Instant::now();
        while let Some(left) = delay.checked_sub(since.elapsed()) {
            if !self.is_open() {
                return false;
            }
            tokio::time::sleep(left.min(CHECK)).await;
        }
        self.parts.push(row);
        true
    }

    /// Whether its events may still be written: they come from one channel, so any speaks for all.
    fn is_open(&self) -> bool {
        let mut acks = self.acks.iter().flatten();
        acks.next().is_none_or(|ack| ack.ticket.is_open())
    }

    /// `false` when the store has been unavailable for too long to keep the events.
    async fn wait_for_store(&self) -> bool {
        let breaker = &self.params.breaker;
        if breaker.is_closed() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return true;
        }
        tokio::select! {
            () = breaker.closed() => true,
            () = breaker.away_for(self.params.release_after) => {
                tracing::warn!(
                    events = self.acks.iter().flatten().count(),
                    "the store has been unavailable for broker.release_after; events return to the broker"
                );
                false
            }
        }
    }

    /// Counts first: a caller that is told that its event is stored may read the metrics next.
    fn settle(&mut self, rows: &Rows, outcomes: &[RowOutcome]) {
        self.count(rows, outcomes);
        for (offset, outcome) in outcomes.iter().enumerate() {
            let outcome = match outcome {
                RowOutcome::Stored => Outcome::Stored,
                RowOutcome::Duplicate { .. } => Outcome::Duplicate,
            };
            if let Some(ack) = self.take(rows, offset) {
                ack.span
                    .in_scope(|| tracing::debug!(outcome = outcome.as_str(), "settled"));
                ack.ticket.settle(outcome);
            }
        }
    }

    fn count(&self, rows: &Rows, outcomes: &[RowOutcome]) {
        let metrics = &self.params.metrics;
        let now = Utc::now();
        let (mut stored, mut duplicates, mut conflicts) = (0, 0, 0);
        for (event, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                RowOutcome::Stored => {
                    stored += 1;
                    let latency = (now - event.received_at).to_std().unwrap_or_default();
                    metrics.event_latency.observe(latency.as_secs_f64());
                }
                RowOutcome::Duplicate { conflicting } => {
                    duplicates += 1;
                    if *conflicting {
                        conflicts += 1;
                        tracing::warn!(
                            event_id = %event.event_id,
                            producer = %event.producer,
                            "the log has another event of this id; the first one stays"
                        );
                    }
                }
            }
        }
        metrics.stored.inc_by(stored);
        metrics.duplicate.inc_by(duplicates);
        metrics.conflicting.inc_by(conflicts);
        let new = rows
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| **outcome == RowOutcome::Stored);
        metrics
            .stored_by_type
            .add(new.map(|(event, _)| event.event_type.as_str()));
    }

    /// Gives a row to the retry supervisor, for its retry queue or, without a delay, for the dead
    /// letters. If the supervisor panics over it, its ticket returns.
    async fn hand_over(&mut self, row: &Rows, error: StoreError, retry_in: Option<Duration>) {
        let (Some(ack), Some(event)) = (self.take(row, 0), row.first()) else {
            return;
        };
        let delivery = Delivery {
            event: event.clone(),
            ticket: ack.ticket,
            attempts: ack.attempts,
            letter: ack.letter,
            span: ack.span,
        };
        let failed = Failed {
            delivery,
            error,
            retry_in,
        };
        if self.params.retry.send(failed).await.is_err() {
            tracing::warn!("the retry supervisor panicked; its event returns to its source");
        }
    }

    fn take(&mut self, rows: &Rows, offset: usize) -> Option<PendingAck> {
        self.acks
            .get_mut(rows.start() + offset)
            .and_then(Option::take)
    }

    fn caller_waits(&self, rows: &Rows) -> bool {
        let run = rows.start()..rows.start() + rows.len();
        let mut acks = self.acks.get(run).unwrap_or_default().iter().flatten();
        acks.any(|ack| ack.ticket.caller_mode() == CallerMode::Caller)
    }

    /// Batches at info, except those that leave because a writer was idle: with few callers each
    /// of them is one event, and a line per event is for debug.
    fn log_written(&self, events: usize, began: Instant) {
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let trigger = self.trigger.as_str();
        if self.trigger == Trigger::Idle {
            tracing::debug!(events, ms, trigger, "batch written");
        } else {
            tracing::info!(events, ms, trigger, "batch written");
        }
    }
}

/// The steps of an isolation fail by design, and are logged at debug.
fn log_failed(rows: &Rows, error: &StoreError, action: Action) {
    let (events, kind, sqlstate) = (rows.len(), error.label(), error.sqlstate());
    if action == Action::Isolate {
        tracing::debug!(events, kind, sqlstate, %error, "isolating bad rows");
        return;
    }
    let (advice, action) = (policy::advice(error), format!("{action:?}"));
    tracing::error!(events, kind, sqlstate, %error, action, advice, "batch not written");
}

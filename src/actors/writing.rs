//! One batch on its way into the store: written whole if possible, else in ever smaller parts until
//! each row that cannot be written stands alone.

use super::db_writer::Wiring;
use super::retry_supervisor::{Failed, Failure};
use crate::event::outcome::Refusal;
use crate::event::{Batch, Cause, Claim, Delivery, Outcome, Patience, Rows, Trigger};
use crate::retry::{Action, FailureKind, Situation, Verdict, policy};
use crate::store::{ErrorKind, RowOutcome, StoreError};
use crate::supervision::{Backoff, failpoint};
use chrono::Utc;
use futures::FutureExt;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A write that did not succeed.
struct WriteError {
    kind: FailureKind,
    text: String,
    sqlstate: Option<String>,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        // The server ended the statement: that is a time-out, whoever's clock it was.
        let timed_out = error.sqlstate() == Some("57014");
        Self {
            kind: if timed_out {
                FailureKind::Timeout
            } else {
                FailureKind::Store(error.kind())
            },
            text: error.to_string(),
            sqlstate: error.sqlstate().map(str::to_owned),
        }
    }
}

/// A batch and what is still to be done with it.
pub(super) struct Writing {
    wiring: Wiring,
    claims: Vec<Option<Claim>>,
    trigger: Trigger,
    started: Instant,
    backoff: Backoff,
    /// Runs of rows still to be written; the next one is last.
    parts: Vec<Rows>,
    /// Failures of single rows whose callers wait here.
    failures: HashMap<usize, u32>,
}

impl Writing {
    pub(super) fn new(wiring: Wiring, batch: Batch) -> Self {
        let parts = vec![Rows::all(batch.events)];
        Self {
            wiring,
            claims: batch.claims.into_iter().map(Some).collect(),
            trigger: batch.trigger,
            started: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(2)),
            parts,
            failures: HashMap::new(),
        }
    }

    /// Writes until every ticket is settled, handed on, or dropped.
    pub(super) async fn run(mut self) {
        while let Some(rows) = self.parts.pop() {
            if self.wiring.lane.is_some() && !self.is_open() {
                // The broker delivers it again in its order, here or to another replica.
                tracing::info!(
                    events = rows.len(),
                    "a shard was given up; its batch returns"
                );
                return;
            }
            let began = Instant::now();
            let result = self.write(rows.clone()).await;
            let label = match &result {
                Ok(_) => "ok",
                Err(error) => error.kind.as_str(),
            };
            self.wiring
                .metrics
                .store_write
                .with_label_values(&[label])
                .observe(began.elapsed().as_secs_f64());
            match result {
                Ok(outcomes) => {
                    failpoint::hit("db_writer.after_commit");
                    self.wiring.breaker.succeeded();
                    self.backoff.reset();
                    self.settle(&rows, &outcomes);
                    self.log_written(rows.len(), began);
                }
                Err(error) => {
                    if !self.failed(rows, error).await {
                        return;
                    }
                }
            }
        }
    }

    /// Writes rows; a crash of the code that does it, and a write without end, are failures like
    /// others here, so that one event cannot take its writer with it.
    async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, WriteError> {
        let store = &self.wiring.store;
        // The semaphore is never closed, and a write without a turn would do no harm.
        let _turn = self.wiring.turns.acquire().await;
        let writing = AssertUnwindSafe(async {
            for event in rows.iter() {
                failpoint::hit_event("db_writer.event", &event.event_type).await;
            }
            match self.wiring.lane {
                None => store.write(rows).await,
                Some(lane) => store.write_in_lane(rows, lane).await,
            }
        })
        .catch_unwind();
        match tokio::time::timeout(self.wiring.write_timeout, writing).await {
            Ok(Ok(Ok(outcomes))) => Ok(outcomes),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(_panic)) => Err(WriteError {
                kind: FailureKind::Panic,
                text: "the code that writes it crashed".to_owned(),
                sqlstate: None,
            }),
            Err(_) => Err(WriteError {
                kind: FailureKind::Timeout,
                text: format!("not written within {:?}", self.wiring.write_timeout),
                sqlstate: None,
            }),
        }
    }

    /// Does what the policy says about rows that could not be written. `false` ends the batch:
    /// what is left of it returns to its source.
    async fn failed(&mut self, rows: Rows, mut error: WriteError) -> bool {
        if error.kind == FailureKind::Timeout
            && let Err(canary) = self.wiring.store.canary().await
        {
            // Nothing can be written, so it is not these rows' fault.
            error = canary.into();
            if error.kind == FailureKind::Timeout {
                error.kind = FailureKind::Store(ErrorKind::Outage);
            }
        }
        if matches!(
            error.kind,
            FailureKind::Store(ErrorKind::Outage | ErrorKind::Operator)
        ) {
            self.wiring.breaker.failed();
        }
        let situation = Situation {
            alone: rows.len() == 1,
            patience: self.patience(&rows),
            store_up: self.wiring.breaker.is_closed(),
            ordered: self.wiring.lane.is_some(),
        };
        let mut action = policy::action(error.kind, situation);
        let late = situation.patience == Patience::Caller
            && self.started.elapsed() >= self.wiring.ingest_timeout;
        let may_pass = matches!(error.kind, FailureKind::Store(ErrorKind::Transient));
        if late && (action == Action::TryAgain || may_pass) {
            action = Action::Refuse;
        }
        self.log_failed(&rows, &error, action);
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
            Action::Hold(cause) => return self.hold(rows, error, cause).await,
            Action::Spend(cause) if situation.patience == Patience::Caller => {
                self.spend_here(rows, error, cause).await;
            }
            Action::Spend(cause) => {
                self.hand_over(&rows, error, Failure::MayPass(cause)).await;
            }
            Action::Bury(cause) => self.hand_over(&rows, error, Failure::Dead(cause)).await,
        }
        true
    }

    fn refuse(&mut self, rows: &Rows) {
        for offset in 0..rows.len() {
            if let Some(claim) = self.take(rows, offset) {
                claim.ticket.settle(Outcome::Refused(Refusal::Unavailable));
            }
        }
    }

    /// Spends an attempt of a row whose caller waits: it is tried again from here.
    async fn spend_here(&mut self, row: Rows, error: WriteError, cause: Cause) {
        let failures = self.failures.entry(row.start()).or_default();
        *failures += 1;
        if *failures >= self.wiring.attempts.max_attempts {
            if cause == Cause::RetriesExhausted {
                // It may pass yet, but not while other callers wait for this writer.
                self.refuse(&row);
            } else {
                self.hand_over(&row, error, Failure::Dead(cause)).await;
            }
        } else {
            tokio::time::sleep(self.backoff.next_pause()).await;
            self.parts.push(row);
        }
    }

    /// Spends an attempt of a row that others wait behind: it is tried again from here after its
    /// pause. `false` when its shard is given up meanwhile.
    async fn hold(&mut self, row: Rows, error: WriteError, cause: Cause) -> bool {
        const LOOK: Duration = Duration::from_millis(500);
        // Those it had before it came to its shard count.
        let before = self.claims.get(row.start()).and_then(Option::as_ref);
        let before = before.map_or(0, |claim| claim.attempts);
        let failures = self.failures.entry(row.start()).or_insert(before);
        let verdict = policy::after_failure(*failures, cause, &self.wiring.attempts);
        *failures += 1;
        match verdict {
            Verdict::Dead(cause) => {
                let earlier = failures.saturating_sub(1);
                if let Some(Some(claim)) = self.claims.get_mut(row.start()) {
                    claim.attempts = earlier;
                }
                self.hand_over(&row, error, Failure::Dead(cause)).await;
            }
            Verdict::Again { delay, .. } => {
                let since = Instant::now();
                while let Some(left) = delay.checked_sub(since.elapsed()) {
                    if !self.is_open() {
                        return false;
                    }
                    tokio::time::sleep(left.min(LOOK)).await;
                }
                self.parts.push(row);
            }
        }
        true
    }

    /// Whether its events may still be written: they come from one channel, so any speaks for all.
    fn is_open(&self) -> bool {
        let mut claims = self.claims.iter().flatten();
        claims.next().is_none_or(|claim| claim.ticket.is_open())
    }

    /// `false` when the store has been away for too long to keep the events.
    async fn wait_for_store(&self) -> bool {
        let breaker = &self.wiring.breaker;
        if breaker.is_closed() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return true;
        }
        tokio::select! {
            () = breaker.closed() => true,
            () = breaker.away_for(self.wiring.release_after) => {
                tracing::warn!(
                    events = self.claims.iter().flatten().count(),
                    "the store has been away for long; events return to the broker"
                );
                false
            }
        }
    }

    /// Counts first: whoever hears that an event is stored may look at the metrics next.
    fn settle(&mut self, rows: &Rows, outcomes: &[RowOutcome]) {
        self.count(rows, outcomes);
        for (offset, (event, outcome)) in rows.iter().zip(outcomes).enumerate() {
            let outcome = match outcome {
                RowOutcome::Stored => Outcome::Stored,
                RowOutcome::Duplicate { .. } => Outcome::Duplicate,
            };
            self.wiring.awaited.announce(&event.event_id);
            if let Some(claim) = self.take(rows, offset) {
                claim
                    .span
                    .in_scope(|| tracing::debug!(outcome = outcome.as_str(), "settled"));
                claim.ticket.settle(outcome);
            }
        }
    }

    fn count(&self, rows: &Rows, outcomes: &[RowOutcome]) {
        let metrics = &self.wiring.metrics;
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

    /// Gives rows to the retry supervisor. If it crashes over them their tickets return.
    async fn hand_over(&mut self, rows: &Rows, error: WriteError, failure: Failure) {
        let mut deliveries = Vec::new();
        for offset in 0..rows.len() {
            if let (Some(claim), Some(event)) = (self.take(rows, offset), rows.get(offset)) {
                deliveries.push(Delivery {
                    event: event.clone(),
                    ticket: claim.ticket,
                    attempts: claim.attempts,
                    letter: claim.letter,
                    span: claim.span,
                });
            }
        }
        let failed = Failed {
            deliveries,
            failure,
            error: error.text,
            sqlstate: error.sqlstate,
        };
        if self.wiring.retry.send(failed).await.is_err() {
            tracing::warn!("the retry supervisor crashed; its events return to their source");
        }
    }

    fn take(&mut self, rows: &Rows, offset: usize) -> Option<Claim> {
        self.claims
            .get_mut(rows.start() + offset)
            .and_then(Option::take)
    }

    /// A queue's patience only if nobody in the run waits for an answer.
    fn patience(&self, rows: &Rows) -> Patience {
        let run = rows.start()..rows.start() + rows.len();
        let waiting = self
            .claims
            .get(run)
            .unwrap_or_default()
            .iter()
            .flatten()
            .any(|claim| claim.ticket.patience() == Patience::Caller);
        if waiting {
            Patience::Caller
        } else {
            Patience::Queue
        }
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

    /// Looking for bad rows fails again and again by design; its steps are for debug.
    fn log_failed(&self, rows: &Rows, error: &WriteError, action: Action) {
        let (events, kind) = (rows.len(), error.kind.as_str());
        let (sqlstate, error_text) = (error.sqlstate.as_deref(), error.text.as_str());
        if action == Action::Isolate {
            tracing::debug!(
                events,
                kind,
                sqlstate,
                error = error_text,
                "parting a batch"
            );
            return;
        }
        let advice = policy::advice(error.kind);
        let action = format!("{action:?}");
        tracing::error!(
            events,
            kind,
            sqlstate,
            error = error_text,
            action,
            advice,
            "batch not written"
        );
    }
}

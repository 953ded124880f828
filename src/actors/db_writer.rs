//! `DbWriter`: takes one batch at a time to the store, and answers every ticket in it.

use super::batch_accumulator::{BatchAccumulator, WriterReady};
use super::retry_supervisor::{Failed, Failure, RetrySupervisor};
use crate::event::outcome::Refusal;
use crate::event::{
    Awaited, Batch, Cause, Claim, Delivery, Event, Outcome, Patience, Rows, Trigger,
};
use crate::metrics::Metrics;
use crate::retry::{Action, policy};
use crate::store::{EventStore, RowOutcome, StoreError};
use crate::supervision::{ActorMessage, Backoff, Mailbox, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use chrono::Utc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a writer is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Which writer of the pool this is.
    pub index: usize,
    /// Where the rows go.
    pub store: Arc<dyn EventStore>,
    /// Whom it asks for work.
    pub accumulator: Mailbox<BatchAccumulator>,
    /// Who takes what failed.
    pub retry: Mailbox<RetrySupervisor>,
    /// How long callers wait.
    pub ingest_timeout: Duration,
    /// Readers to wake.
    pub awaited: Awaited,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct DbWriter {
    wiring: Wiring,
    busy: bool,
}

/// A batch to write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteBatch(pub Batch);

/// The accumulator has forgotten who is idle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskReady;

impl ActorMessage for WriteBatch {
    const NAME: &'static str = "write_batch";
}
impl ActorMessage for AskReady {
    const NAME: &'static str = "ask_ready";
}

impl DbWriter {
    /// An idle writer.
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            busy: false,
        }
    }

    /// Asks for work, waiting for room in the accumulator's mailbox if need be: a request that got
    /// lost would idle this writer for good.
    fn ask(&self, ctx: &mut Context<Self>) {
        let accumulator = self.wiring.accumulator.clone();
        let index = self.wiring.index;
        ctx.spawn(
            async move {
                while accumulator.send(WriterReady(index)).await.is_err() {
                    // The accumulator crashed over this very message; it will be back.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            .into_actor(self),
        );
    }
}

impl Actor for DbWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
    }
}

impl Supervised for DbWriter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.busy = false;
    }
}

impl Handler<Tracked<AskReady>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<AskReady>, ctx: &mut Self::Context) {
        let _handling = message.open();
        if !self.busy {
            self.ask(ctx);
        }
    }
}

impl Handler<Tracked<WriteBatch>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<WriteBatch>, ctx: &mut Self::Context) {
        let Some((WriteBatch(batch), handling)) = message.open() else {
            return;
        };
        failpoint::hit("db_writer.write_batch");
        self.busy = true;
        let wiring = self.wiring.clone();
        ctx.spawn(
            async move {
                let _handling = handling;
                Writing::new(wiring, batch).run().await;
            }
            .into_actor(self)
            .map(|(), writer, ctx| {
                writer.busy = false;
                writer.ask(ctx);
            }),
        );
    }
}

/// One batch on its way into the store.
struct Writing {
    wiring: Wiring,
    events: Arc<Vec<Event>>,
    claims: Vec<Option<Claim>>,
    trigger: Trigger,
    started: Instant,
    backoff: Backoff,
}

impl Writing {
    fn new(wiring: Wiring, batch: Batch) -> Self {
        Self {
            wiring,
            events: batch.events,
            trigger: batch.trigger,
            claims: batch.claims.into_iter().map(Some).collect(),
            started: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
        }
    }

    /// Writes until every ticket is settled or handed on.
    async fn run(mut self) {
        let mut parts = vec![Rows::all(Arc::clone(&self.events))];
        while let Some(rows) = parts.pop() {
            let began = Instant::now();
            let result = self.wiring.store.write(rows.clone()).await;
            failpoint::hit("db_writer.after_commit");
            let label = match &result {
                Ok(_) => "ok",
                Err(error) => error.kind().as_str(),
            };
            self.wiring
                .metrics
                .store_write
                .with_label_values(&[label])
                .observe(began.elapsed().as_secs_f64());
            match result {
                Ok(outcomes) => {
                    self.backoff.reset();
                    self.settle(&rows, &outcomes);
                    self.log_written(rows.len(), began);
                }
                Err(error) => self.failed(rows, error, &mut parts).await,
            }
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

    fn settle(&mut self, rows: &Rows, outcomes: &[RowOutcome]) {
        let metrics = Arc::clone(&self.wiring.metrics);
        let now = Utc::now();
        let (mut stored, mut duplicates, mut conflicts) = (0, 0, 0);
        for (offset, (event, outcome)) in rows.iter().zip(outcomes).enumerate() {
            let outcome = match outcome {
                RowOutcome::Stored => {
                    stored += 1;
                    let latency = (now - event.received_at).to_std().unwrap_or_default();
                    metrics.event_latency.observe(latency.as_secs_f64());
                    Outcome::Stored
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
                    Outcome::Duplicate
                }
            };
            self.wiring.awaited.announce(&event.event_id);
            if let Some(claim) = self.take(rows, offset) {
                claim
                    .span
                    .in_scope(|| tracing::debug!(outcome = outcome.as_str(), "settled"));
                claim.ticket.settle(outcome);
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

    /// Does what the policy says about rows that could not be written.
    async fn failed(&mut self, rows: Rows, error: StoreError, parts: &mut Vec<Rows>) {
        let patience = self.patience(&rows);
        let kind = error.kind();
        let mut action = policy::action(kind, patience);
        if action == Action::TryAgain && self.started.elapsed() >= self.wiring.ingest_timeout {
            action = Action::Refuse;
        }
        if action != Action::Isolate {
            tracing::error!(
                events = rows.len(),
                kind = kind.as_str(),
                sqlstate = error.sqlstate(),
                error = %error,
                action = ?action,
                advice = policy::advice(kind),
                "batch not written"
            );
        }
        match action {
            Action::Pause | Action::TryAgain => {
                tokio::time::sleep(self.backoff.next_pause()).await;
                parts.push(rows);
            }
            Action::Refuse => {
                for offset in 0..rows.len() {
                    if let Some(claim) = self.take(&rows, offset) {
                        claim.ticket.settle(Outcome::Refused(Refusal::Unavailable));
                    }
                }
            }
            Action::Isolate => match rows.halves() {
                // The front half is written first, so that `id`s keep to the order of arrival.
                Some((front, back)) => parts.extend([back, front]),
                None => {
                    self.hand_over(&rows, &error, Failure::Dead(Cause::Poison))
                        .await
                }
            },
            Action::RetryLater => self.hand_over(&rows, &error, Failure::Transient).await,
        }
    }

    /// Gives the rows to the retry supervisor. If it crashes over them their tickets return.
    async fn hand_over(&mut self, rows: &Rows, error: &StoreError, failure: Failure) {
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
            error: error.to_string(),
            sqlstate: error.sqlstate().map(str::to_owned),
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
}

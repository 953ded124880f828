//! First outcomes of a lane, from the end of an attempt to the step that stores them.

use super::attempts::Attempted;
use super::backlog::{Backlog, Batch, Company};
use super::decision::Decision;
use super::handler::HandlerError;
use super::queue::{ROLLED_BACK, some};
use super::reaction::Reaction;
use crate::event::StoredEvent;
use crate::followers::driver::Stepper;
use crate::store::commit_log::Position;
use crate::store::reactions::{
    Attempt, Due, EndedRun, Ending, FirstOutcomes, QueuedRun, kept_error,
};
use crate::store::transaction::EffectError;
use chrono::Utc;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The outcome of a slot.
#[derive(Debug, Clone)]
pub(super) enum FirstOutcome {
    Ended(EndedRun),
    Queued(QueuedRun),
}

impl FirstOutcome {
    pub(super) fn position(&self) -> Position {
        match self {
            FirstOutcome::Ended(run) => run.position,
            FirstOutcome::Queued(run) => run.position,
        }
    }

    /// That of a run that was not started.
    pub(super) fn unstarted(
        position: Position,
        event: &StoredEvent,
        ending: Ending,
        error: String,
    ) -> Self {
        FirstOutcome::Ended(EndedRun {
            position,
            event_id: event.event_id,
            ending,
            attempts: 0,
            took: Duration::ZERO,
            error: Some(error),
        })
    }

    /// That of a first attempt.
    fn attempted(
        attempted: &Attempted,
        key: Option<&String>,
        decision: Decision,
        keys: Keys,
        worker: &str,
    ) -> Self {
        let of = &attempted.of;
        match decision {
            Decision::Ended { ending, error } => FirstOutcome::Ended(EndedRun {
                position: of.position,
                event_id: of.event.event_id,
                ending,
                attempts: of.attempt,
                took: attempted.took,
                error,
            }),
            Decision::Again {
                after,
                error,
                unspent,
            } => {
                let attempt = Attempt {
                    attempt: of.attempt,
                    at: Utc::now(),
                    worker: worker.to_owned(),
                    error: kept_error(&error),
                    duration_ms: Some(attempted.took.as_secs_f64() * 1_000.0),
                };
                FirstOutcome::Queued(QueuedRun {
                    position: of.position,
                    event: Arc::clone(&of.event),
                    order_key: key.filter(|_| keys.is_ordered).cloned(),
                    unique_key: key.filter(|_| keys.is_unique).cloned(),
                    due: Due::After(after),
                    attempts: if unspent { 0 } else { of.attempt },
                    alone: false,
                    history: if unspent { Vec::new() } else { vec![attempt] },
                })
            }
        }
    }
}

/// What a lane's key is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) is_ordered: bool,
    pub(super) is_unique: bool,
}

/// What a step has stored.
pub(super) struct StoredStep {
    pub(super) outcomes: Vec<FirstOutcome>,
    /// `None` if nothing was stored.
    pub(super) stored: Option<()>,
    /// Why.
    pub(super) error: Option<EffectError>,
    /// Nothing at all can be stored for a while, and not only these.
    pub(super) failed: bool,
}

type Storing = BoxFuture<'static, (Stepper, Result<bool, EffectError>, Batch<FirstOutcome>)>;

/// Outcomes on their way into the store.
pub(super) struct Outcomes {
    pub(super) reaction: i32,
    pub(super) worker: Arc<str>,
    pub(super) keys: Keys,
    /// While no step is under way.
    stepper: Option<Stepper>,
    backlog: Backlog<FirstOutcome>,
    /// Keys that the next step releases: the lane has nothing under way of them.
    pub(super) released: Vec<String>,
    storing: Option<Storing>,
    stored_at: Instant,
    /// The store is not to be asked before.
    hold: Option<Instant>,
}

impl Outcomes {
    pub(super) fn new(reaction: i32, worker: Arc<str>, keys: Keys, stepper: Stepper) -> Self {
        Self {
            reaction,
            worker,
            keys,
            stepper: Some(stepper),
            backlog: Backlog::new(),
            released: Vec::new(),
            storing: None,
            stored_at: Instant::now(),
            hold: None,
        }
    }

    /// How many are not stored.
    pub(super) fn unstored(&self) -> usize {
        self.backlog.len() + usize::from(self.storing.is_some())
    }

    pub(super) fn push(&mut self, outcome: FirstOutcome) {
        self.backlog.push(outcome);
    }

    /// Takes in the end of a first attempt, and says what follows.
    pub(super) fn attempted(
        &mut self,
        attempted: &Attempted,
        result: Result<(), HandlerError>,
        key: Option<&String>,
        reaction: &Reaction,
    ) -> Decision {
        let result = match result {
            // If the transaction was committed, the row of the run is there, and this one is not inserted.
            Ok(()) if attempted.completed => Err(HandlerError::Failed(ROLLED_BACK.to_owned())),
            result => result,
        };
        let decision = Decision::of(result, attempted.of.counted, reaction);
        let outcome =
            FirstOutcome::attempted(attempted, key, decision.clone(), self.keys, &self.worker);
        if attempted.completed {
            self.backlog.push_doubtful(outcome);
        } else {
            self.backlog.push(outcome);
        }
        decision
    }

    /// When something is to be stored that is not now.
    pub(super) fn due_at(&self, low: Position) -> Option<Instant> {
        if self.storing.is_some() {
            return None;
        }
        let progress = self
            .stepper
            .as_ref()
            .filter(|stepper| low > stepper.position)
            .map(|_| self.stored_at + Duration::from_secs(1));
        let outcome = self.backlog.due_at();
        let released = (!self.released.is_empty()).then_some(self.stored_at);
        let wanted = progress.into_iter().chain(outcome).chain(released).min()?;
        Some(self.hold.map_or(wanted, |hold| hold.max(wanted)))
    }

    /// Begins a step with what is decided, if none is under way and something is to be stored. `low_with` is the low
    /// position behind these outcomes.
    pub(super) fn store(
        &mut self,
        begun: u32,
        low: Position,
        low_with: impl FnOnce(&[FirstOutcome]) -> Position,
    ) {
        let now = Instant::now();
        if self.due_at(low).is_none_or(|due| due > now) {
            return;
        }
        let Some(mut stepper) = self.stepper.take() else {
            return;
        };
        let batch = self.backlog.take(now);
        self.hold = None;
        let to = low_with(&batch.outcomes).max(stepper.position);
        let mut effect = self.effect(&batch);
        effect.released = std::mem::take(&mut self.released);
        let effect = Arc::new(effect);
        self.storing = Some(
            async move {
                let result = stepper.step(to, begun, effect).await;
                let result = match result {
                    // Perhaps an earlier step whose answer was lost.
                    Ok(false) => stepper.reload().await.map(|_| false).map_err(Into::into),
                    result => result,
                };
                (stepper, result, batch)
            }
            .boxed(),
        );
    }

    fn effect(&self, batch: &Batch<FirstOutcome>) -> FirstOutcomes {
        let mut effect = FirstOutcomes {
            reaction: self.reaction,
            worker: Arc::clone(&self.worker),
            ended: Vec::new(),
            queued: Vec::new(),
            released: Vec::new(),
            lock_timeout: None,
        };
        for outcome in &batch.outcomes {
            match outcome {
                FirstOutcome::Ended(run) => effect.ended.push(run.clone()),
                FirstOutcome::Queued(run) => effect.queued.push(run.clone()),
            }
        }
        // Besides rows that a handler may have inserted there are the locks of keys to wait for.
        let has_key =
            !self.released.is_empty() || effect.queued.iter().any(|run| run.order_key.is_some());
        if batch.company != Company::All || has_key {
            effect.lock_timeout = Some(batch.company.lock_timeout());
        }
        effect
    }

    /// Waits for the end of the step. Never ends if there is none.
    pub(super) async fn stored(&mut self) -> StoredStep {
        let (stepper, result, batch) = some(&mut self.storing).await;
        self.storing = None;
        self.stepper = Some(stepper);
        let error = match result {
            Ok(true) => {
                self.stored_at = Instant::now();
                return StoredStep {
                    outcomes: batch.outcomes,
                    stored: Some(()),
                    error: None,
                    failed: false,
                };
            }
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let kind = match &error {
            Some(EffectError::Store(error)) => Some(error.kind()),
            _ => None,
        };
        StoredStep {
            outcomes: Vec::new(),
            stored: None,
            failed: self.backlog.refused(batch, kind),
            error,
        }
    }

    /// Asks the store again only after this time.
    pub(super) fn hold(&mut self, pause: Duration) {
        self.hold = Some(Instant::now() + pause);
    }

    /// The position is stored with nothing begun behind it.
    pub(super) async fn end(&mut self, low: Position) -> Result<(), EffectError> {
        let effect = Arc::new(self.effect(&Batch::default()));
        if let Some(stepper) = &mut self.stepper {
            // Refused, it stays as it is: the next holder takes more care than needed.
            stepper.step(low.max(stepper.position), 0, effect).await?;
        }
        Ok(())
    }

    /// Stores that handlers may be started from now on.
    pub(super) async fn begin(&mut self, begun: u32) -> Result<bool, EffectError> {
        let effect = Arc::new(self.effect(&Batch::default()));
        match &mut self.stepper {
            Some(stepper) => stepper.step(stepper.position, begun, effect).await,
            None => Ok(false),
        }
    }
}

//! The queue of a reaction as a lane works on it: claims of what is due, and their outcomes.

use super::attempts::{Attempted, Gate, Started};
use super::backlog::{Backlog, Batch};
use super::decision::Decision;
use super::handler::HandlerError;
use super::reaction::Plan;
use crate::store::reactions::{
    Claim, ClaimOutcome, Claimed, ClaimedRun, Ending, FinishedClaim, FinishedClaims,
};
use crate::store::{Store, StoreError};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedRwLockWriteGuard;

/// How often the queue is looked at although nothing is known to be due: other processes add to it.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than the handler's time a claim holds.
const MARGIN: Duration = Duration::from_secs(15);

/// What was claimed.
pub(super) struct Taken {
    pub(super) claimed: Claimed,
    /// When the claims end, counted from before they were asked for.
    pub(super) until: Instant,
    /// Held if it is one run that runs alone.
    pub(super) alone: Option<OwnedRwLockWriteGuard<()>>,
}

/// Claims under way, and outcomes that are to be stored.
pub(super) struct Queue {
    store: Arc<dyn Store>,
    plan: Arc<Plan>,
    reaction: i32,
    worker: Arc<str>,
    gate: Gate,
    /// When to look again.
    look_at: Instant,
    look_alone_at: Option<Instant>,
    claiming: Option<BoxFuture<'static, Result<Taken, StoreError>>>,
    entering: Option<BoxFuture<'static, OwnedRwLockWriteGuard<()>>>,
    finished: Backlog<FinishedClaim>,
    /// The store is not to be asked before.
    finish_at: Instant,
    /// Outcomes that are being stored.
    storing: usize,
    finishing: Option<BoxFuture<'static, Finishing>>,
}

/// Outcomes, and how many of them were not stored because another claim had taken their run over.
type Finishing = (Batch<FinishedClaim>, Result<u64, StoreError>);

/// What has happened.
pub(super) enum QueueNews {
    Taken(Result<Taken, StoreError>),
    /// Outcomes are stored, or are to be stored again.
    Finished(Result<(), StoreError>),
    /// Outcomes are refused, and stored later; others are not kept waiting.
    Refused(StoreError),
    /// The one run that runs alone may be claimed.
    Entered,
}

impl Queue {
    pub(super) fn new(
        store: Arc<dyn Store>,
        plan: Arc<Plan>,
        reaction: i32,
        worker: Arc<str>,
        gate: Gate,
    ) -> Self {
        Self {
            store,
            plan,
            reaction,
            worker,
            gate,
            look_at: Instant::now(),
            look_alone_at: None,
            claiming: None,
            entering: None,
            finished: Backlog::new(),
            finish_at: Instant::now(),
            storing: 0,
            finishing: None,
        }
    }

    /// When something is to be looked for.
    pub(super) fn due_at(&self) -> Instant {
        match self.look_alone_at {
            Some(alone) if self.entering.is_none() => self.look_at.min(alone),
            _ => self.look_at,
        }
    }

    /// When outcomes are to be stored.
    pub(super) fn finish_at(&self) -> Option<Instant> {
        let due = self
            .finished
            .due_at()
            .filter(|_| self.finishing.is_none())?;
        Some(due.max(self.finish_at))
    }

    /// A run is due after this time.
    pub(super) fn expect(&mut self, after: Duration) {
        self.look_at = self.look_at.min(Instant::now() + after);
    }

    fn claim(&self, alone: bool, limit: usize) -> Claim {
        Claim {
            reaction: self.reaction,
            alone,
            limit,
            lease: self.plan.reaction.timeout + MARGIN,
            worker: Arc::clone(&self.worker),
        }
    }

    /// Looks for what is due, if it is time to, for at most `free` attempts.
    pub(super) fn look(&mut self, free: usize) {
        let now = Instant::now();
        if self.entering.is_none() && self.look_alone_at.is_some_and(|at| at <= now) {
            self.entering = Some(Arc::clone(&self.gate).write_owned().boxed());
        }
        if self.claiming.is_none() && free > 0 && self.look_at <= now {
            let (store, claim) = (Arc::clone(&self.store), self.claim(false, free));
            let until = now + claim.lease;
            let claiming = async move {
                let claimed = store.claim(&claim).await?;
                let alone = None;
                Ok(Taken {
                    claimed,
                    until,
                    alone,
                })
            };
            self.claiming = Some(claiming.boxed());
        }
    }

    /// Gives up what is only waited for.
    pub(super) fn leave(&mut self) {
        self.entering = None;
    }

    /// Waits for what is under way.
    pub(super) async fn news(&mut self) -> QueueNews {
        tokio::select! {
            taken = some(&mut self.claiming) => {
                self.claiming = None;
                self.look_at = Instant::now() + LOOK;
                if let Ok(taken) = &taken {
                    self.plan_look(&taken.claimed);
                }
                QueueNews::Taken(taken)
            }
            guard = some(&mut self.entering), if self.claiming.is_none() => {
                self.entering = None;
                self.look_alone_at = None;
                let (store, claim) = (Arc::clone(&self.store), self.claim(true, 1));
                let until = Instant::now() + claim.lease;
                let claiming = async move {
                    let claimed = store.claim(&claim).await?;
                    let alone = Some(guard);
                    Ok(Taken { claimed, until, alone })
                };
                self.claiming = Some(claiming.boxed());
                QueueNews::Entered
            }
            (batch, result) = some(&mut self.finishing) => {
                self.finishing = None;
                self.storing = 0;
                match result {
                    Ok(_) => QueueNews::Finished(Ok(())),
                    Err(error) if self.finished.refused(batch, Some(error.kind())) => {
                        QueueNews::Finished(Err(error))
                    }
                    Err(error) => QueueNews::Refused(error),
                }
            }
        }
    }

    fn plan_look(&mut self, claimed: &Claimed) {
        let now = Instant::now();
        if let Some(next) = claimed.next {
            self.look_at = now + next.min(LOOK);
        }
        self.look_alone_at = claimed.next_alone.map(|next| now + next);
    }

    /// What a claimed run is started with; `None` if it is not, because its attempts are spent.
    pub(super) fn admit(&mut self, run: ClaimedRun, until: Instant) -> Option<Started> {
        let counted = run.attempts.saturating_sub(run.attempts_before);
        if counted > self.plan.reaction.max_attempts {
            // The last attempts were claimed, and nothing was heard of them.
            self.finished.push(FinishedClaim {
                position: run.position,
                event_id: run.event.event_id,
                token: run.token,
                attempt: run.attempts,
                took: Duration::ZERO,
                outcome: ClaimOutcome::Ended {
                    ending: Ending::Failed,
                    error: Some(
                        "the last attempt has no outcome: its process ended, or was stopped"
                            .to_owned(),
                    ),
                },
            });
            return None;
        }
        Some(Started {
            position: run.position,
            event: Arc::new(run.event),
            attempt: run.attempts,
            counted,
            token: Some(run.token),
            until: Some(until),
        })
    }

    /// Takes in the end of an attempt, and says what follows.
    pub(super) fn attempted(&mut self, attempted: Attempted, token: i64) -> Decision {
        let unspent = |error: &str| Decision::Again {
            after: Duration::ZERO,
            error: error.to_owned(),
            unspent: true,
        };
        let decision = match attempted.result {
            None => unspent("not started in time"),
            // If the handler's transaction was committed, the queue has the run no more.
            Some(Ok(())) if attempted.completed => Decision::of(
                Err(HandlerError::Failed(ROLLED_BACK.to_owned())),
                attempted.of.counted,
                &self.plan.reaction,
            ),
            Some(result) => Decision::of(result, attempted.of.counted, &self.plan.reaction),
        };
        let outcome = match decision.clone() {
            Decision::Ended { ending, error } => ClaimOutcome::Ended { ending, error },
            Decision::Again {
                after,
                error,
                unspent,
            } => {
                self.expect(after);
                ClaimOutcome::Again {
                    after,
                    error,
                    unspent,
                }
            }
        };
        let finished = FinishedClaim {
            position: attempted.of.position,
            event_id: attempted.of.event.event_id,
            token,
            attempt: attempted.of.attempt,
            took: attempted.took,
            outcome,
        };
        match attempted.completed {
            true => self.finished.push_doubtful(finished),
            false => self.finished.push(finished),
        }
        decision
    }

    /// Stores outcomes, if none are being stored.
    pub(super) fn finish(&mut self) {
        let now = Instant::now();
        if self.finish_at().is_none_or(|due| due > now) {
            return;
        }
        let batch = self.finished.take(now);
        self.storing = batch.outcomes.len();
        let (store, worker, reaction) = (
            Arc::clone(&self.store),
            Arc::clone(&self.worker),
            self.reaction,
        );
        let finishing = async move {
            let finished = FinishedClaims {
                reaction,
                worker,
                claims: batch.outcomes.clone(),
                lock_timeout: batch.company.lock_timeout(),
            };
            let result = store.finish(finished).await;
            (batch, result)
        };
        self.finishing = Some(finishing.boxed());
    }

    /// Whether a claim is under way, for which an attempt must be free.
    pub(super) fn is_claiming(&self) -> bool {
        self.claiming.is_some()
    }

    /// How many outcomes are not stored.
    pub(super) fn unstored(&self) -> usize {
        self.finished.len() + self.storing
    }

    /// Asks the store again only after this time.
    pub(super) fn rest(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.look_at = self.look_at.max(at);
        self.finish_at = at;
        self.look_alone_at = self.look_alone_at.map(|alone| alone.max(at));
    }
}

/// What is said of a run whose handler has returned without committing the outcome that it had stored.
pub(super) const ROLLED_BACK: &str =
    "the handler stored its outcome in a transaction that was not committed";

/// The future's value; never ends if there is none.
pub(super) async fn some<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

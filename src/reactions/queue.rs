//! The queue of a reaction as a lane works on it: claims of what is due, and their outcomes.

use super::attempts::{Attempted, Started, Turn, Turns};
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

/// How often the queue is looked at although nothing is known to be due: other processes add to it.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than the handler's time a claim holds.
const MARGIN: Duration = Duration::from_secs(15);

/// What was claimed.
pub(super) struct Taken {
    pub(super) claimed: Claimed,
    /// When the claims end, counted from before they were asked for.
    pub(super) until: Instant,
    /// Held if it is one run that takes turns.
    pub(super) turn: Option<Turn>,
}

/// Claims under way, and outcomes that are to be stored.
pub(super) struct Queue {
    store: Arc<dyn Store>,
    plan: Arc<Plan>,
    reaction: i32,
    worker: Arc<str>,
    turns: Turns,
    /// When to look again.
    look_at: Instant,
    look_alone_at: Option<Instant>,
    claiming: Option<BoxFuture<'static, Result<Taken, StoreError>>>,
    waiting: Option<BoxFuture<'static, Turn>>,
    /// Until a run is claimed for it.
    turn: Option<Turn>,
    /// That of an attempt that has ended, until the outcome of this claim is stored or the claim has run out.
    ended: Option<(i64, Instant, Turn)>,
    /// How many attempts are kept free for the claim under way.
    claimable: usize,
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
    /// One run that takes turns may be claimed.
    Turn,
}

impl Queue {
    pub(super) fn new(
        store: Arc<dyn Store>,
        plan: Arc<Plan>,
        reaction: i32,
        worker: Arc<str>,
        turns: Turns,
    ) -> Self {
        Self {
            store,
            plan,
            reaction,
            worker,
            turns,
            look_at: Instant::now(),
            look_alone_at: None,
            claiming: None,
            waiting: None,
            turn: None,
            ended: None,
            claimable: 0,
            finished: Backlog::new(),
            finish_at: Instant::now(),
            storing: 0,
            finishing: None,
        }
    }

    /// When something is to be looked for.
    pub(super) fn due_at(&self) -> Instant {
        match self.look_alone_at {
            Some(alone) if self.waiting.is_none() && self.turn.is_none() => self.look_at.min(alone),
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

    /// Looks for what is due, if it is time to, for at most `free` attempts.
    pub(super) fn look(&mut self, free: usize) {
        let now = Instant::now();
        self.ended.take_if(|(_, until, _)| *until <= now);
        let is_waiting = self.waiting.is_some() || self.turn.is_some();
        if !is_waiting && self.look_alone_at.is_some_and(|at| at <= now) {
            self.waiting = Some(Arc::clone(&self.turns).lock_owned().boxed());
        }
        if self.claiming.is_some() || free == 0 {
            return;
        }
        if let Some(turn) = self.turn.take() {
            self.look_alone_at = None;
            self.begin(1, Some(turn));
        } else if self.look_at <= now {
            self.begin(free, None);
        }
    }

    /// Begins a claim: of one run that takes turns, or of those that do not.
    fn begin(&mut self, limit: usize, turn: Option<Turn>) {
        let claim = Claim {
            reaction: self.reaction,
            alone: turn.is_some(),
            limit,
            lease: self.plan.reaction.timeout + MARGIN,
            worker: Arc::clone(&self.worker),
        };
        let store = Arc::clone(&self.store);
        let until = Instant::now() + claim.lease;
        let claiming = async move {
            let claimed = store.claim(&claim).await?;
            Ok(Taken {
                claimed,
                until,
                turn,
            })
        };
        self.claimable = limit;
        self.claiming = Some(claiming.boxed());
    }

    /// Gives up what is only waited for.
    pub(super) fn leave(&mut self) {
        self.waiting = None;
        self.turn = None;
    }

    /// Waits for what is under way.
    pub(super) async fn news(&mut self) -> QueueNews {
        tokio::select! {
            taken = some(&mut self.claiming) => {
                self.claiming = None;
                self.claimable = 0;
                self.look_at = Instant::now() + LOOK;
                if let Ok(taken) = &taken {
                    self.plan_look(&taken.claimed);
                }
                QueueNews::Taken(taken)
            }
            turn = some(&mut self.waiting) => {
                self.waiting = None;
                self.turn = Some(turn);
                QueueNews::Turn
            }
            (batch, result) = some(&mut self.finishing) => {
                self.finishing = None;
                self.storing = 0;
                match result {
                    Ok(_) => {
                        let is_stored = |token| batch.outcomes.iter().any(|one| one.token == token);
                        self.ended.take_if(|(token, _, _)| is_stored(*token));
                        QueueNews::Finished(Ok(()))
                    }
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
        if let (Some(turn), Some(until)) = (attempted.turn, attempted.of.until) {
            self.ended = Some((token, until, turn));
        }
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

    /// Whether a claim is under way.
    pub(super) fn is_claiming(&self) -> bool {
        self.claiming.is_some()
    }

    /// How many attempts are kept free for what is claimed.
    pub(super) fn kept_free(&self) -> usize {
        self.claimable + usize::from(self.turn.is_some())
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

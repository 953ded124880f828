//! Attempts under way.

use super::completion::Completion;
use super::handler::{HandlerError, Run};
use super::reaction::Plan;
use crate::event::StoredEvent;
use crate::maintenance::leader::Leadership;
use crate::store::commit_log::Position;
use crate::supervision::failpoint;
use futures::FutureExt;
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

/// Whose turn it is of the runs of a process that may have ended one: two of them never run at a time, so that the one
/// that did it takes no other of them with it. Fair.
pub(super) type Turns = Arc<Mutex<()>>;

/// Held from before such a run is claimed until its outcome is stored.
pub(super) type Turn = OwnedMutexGuard<()>;

/// What an attempt is made for.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) position: Position,
    pub(super) event: Arc<StoredEvent>,
    pub(super) attempt: u32,
    /// Of the attempts, those that count towards the most that are allowed.
    pub(super) counted: u32,
    /// Of the claim; `None` for a first attempt.
    pub(super) token: Option<i64>,
    /// When the claim ends.
    pub(super) until: Option<Instant>,
}

/// An attempt that has ended.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) of: Started,
    pub(super) took: Duration,
    /// `None` if it was not started: the time under which it may run was over.
    pub(super) result: Option<Result<(), HandlerError>>,
    /// The handler has begun to store the outcome itself.
    pub(super) completed: bool,
    pub(super) turn: Option<Turn>,
}

/// How long it took, and the result; `None` if it was not started.
type Ended = (Duration, Option<Result<(), HandlerError>>);

/// The attempts of a lane. Dropped, all of them are aborted.
pub(super) struct Attempts {
    plan: Arc<Plan>,
    reaction: i32,
    worker: Arc<str>,
    leadership: Leadership,
    runtime: Handle,
    tasks: JoinSet<Ended>,
    under_way: HashMap<Id, (Started, Arc<AtomicBool>, Option<Turn>)>,
}

impl Attempts {
    pub(super) fn new(
        plan: Arc<Plan>,
        reaction: i32,
        worker: Arc<str>,
        leadership: Leadership,
        runtime: Handle,
    ) -> Self {
        Self {
            plan,
            reaction,
            worker,
            leadership,
            runtime,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Starts an attempt on the runtime of the handlers.
    pub(super) fn start(&mut self, of: Started, turn: Option<Turn>) {
        let begun = Arc::new(AtomicBool::new(false));
        let run = Run {
            reaction: Arc::clone(&self.plan.reaction.name),
            attempt: of.attempt,
            event: Arc::clone(&of.event),
            completion: Some(Completion {
                reaction: self.reaction,
                position: of.position,
                token: of.token,
                worker: Arc::clone(&self.worker),
                begun: Arc::clone(&begun),
            }),
        };
        let attempt = attempt(
            Arc::clone(&self.plan),
            run,
            self.leadership.clone(),
            of.until,
        );
        let task = self.tasks.spawn_on(attempt, &self.runtime);
        self.under_way.insert(task.id(), (of, begun, turn));
    }

    /// Waits for the end of an attempt. Never ends while there is none.
    pub(super) async fn ended(&mut self) -> Attempted {
        loop {
            let Some(joined) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            if let Some(attempted) = self.attempted(joined) {
                return attempted;
            }
        }
    }

    /// An attempt that has ended already.
    pub(super) fn another(&mut self) -> Option<Attempted> {
        let joined = self.tasks.try_join_next_with_id()?;
        self.attempted(joined)
    }

    fn attempted(&mut self, joined: Result<(Id, Ended), JoinError>) -> Option<Attempted> {
        let (id, took, result) = match joined {
            Ok((id, (took, result))) => (id, took, result),
            Err(error) => {
                let message = "the runtime of the handlers has ended";
                let failed = HandlerError::Failed(message.to_owned());
                (error.id(), Duration::ZERO, Some(Err(failed)))
            }
        };
        let (of, begun, turn) = self.under_way.remove(&id)?;
        Some(Attempted {
            of,
            took,
            result,
            completed: begun.load(Ordering::Acquire),
            turn,
        })
    }
}

async fn attempt(
    plan: Arc<Plan>,
    run: Run,
    leadership: Leadership,
    until: Option<Instant>,
) -> Ended {
    let limit = plan.reaction.timeout;
    let began = Instant::now();
    let in_time = match until {
        // A claim is the database's word; the lane's lease has nothing to do with it.
        Some(until) => began + limit <= until,
        None => leadership.is_current(),
    };
    if !in_time {
        return (Duration::ZERO, None);
    }
    failpoint::hit_part("reaction.started", &plan.reaction.name).await;
    let handling = AssertUnwindSafe(plan.handler.handle(&run)).catch_unwind();
    let result = match timeout(limit, handling).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(HandlerError::Failed(format!(
            "the handler panicked: {}",
            words(&*panic)
        ))),
        Err(_) => Err(HandlerError::Failed(format!(
            "the handler did not end within {}",
            humantime::format_duration(limit)
        ))),
    };
    (began.elapsed(), Some(result))
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

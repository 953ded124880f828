//! `Reactor`: runs the handlers of one lane of a reaction, while this process holds the lane's lease.
//!
//! ```text
//!   log ── fetch ──► Window ── start ──► Attempts ── outcome ──► Outcomes ── step ──► store
//!                      ▲                    ▲ │                                 │
//!                      └── stored ──────────┼─┼─────────────────────────────────┘
//!                        claims ── Queue ───┘ └── outcome ──► Queue ── finish ──► store
//! ```

use super::attempts::{Attempts, Turns};
use super::fetch::Source;
use super::lane::Lane;
use super::oldest_due::OldestDue;
use super::outcomes::{Keys, Outcomes};
use super::queue::Queue;
use super::rate::Rate;
use super::reaction::Plan;
use super::selection::Selection;
use super::window::Window;
use crate::followers::driver::{Drive, DriveError, Driver};
use crate::metrics::Metrics;
use crate::store::commit_log::Position;
use crate::store::followers::FollowerRecord;
use crate::store::reactions::QueueKey;
use crate::store::{ErrorKind, Store, StoreError};
use crate::supervision::Backoff;
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often to ask whether the other lanes have reached the declaration of this one.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What the lanes of a process share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) worker: Arc<str>,
    pub(super) turns: Turns,
    /// On which the handlers run; that of the followers if absent.
    pub(super) runtime: Option<Handle>,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs one lane of a reaction.
pub(super) struct Reactor {
    pub(super) plan: Arc<Plan>,
    /// The lane's follower.
    pub(super) follower: String,
    pub(super) lane: u32,
    pub(super) shared: Shared,
}

fn failed(what: &'static str) -> impl FnOnce(StoreError) -> DriveError {
    move |error| DriveError { what, error }
}

#[async_trait]
impl Driver for Reactor {
    fn name(&self) -> &str {
        &self.follower
    }

    async fn drive(&self, mut drive: Drive<'_>) -> Result<(), DriveError> {
        let (store, plan) = (&self.shared.store, &self.plan);
        let reaction = store
            .reaction(&plan.reaction.name)
            .await
            .map_err(failed("its reaction cannot be read"))?;
        let (Some(reaction), Some(spec)) = (reaction, drive.record.spec.clone()) else {
            // Removed by command.
            drive.interruption.comes().await;
            return Ok(());
        };
        let selection = Selection::new(&spec).map_err(|invalid| DriveError {
            what: "its declaration cannot be read",
            error: StoreError::new(ErrorKind::Operator, invalid.to_string()),
        })?;
        // What it reacts to, and in what order, was declared, perhaps by another process; how is up to this one.
        let declared = Keys {
            is_ordered: spec.ordered,
            is_unique: spec.unique,
        };
        if declared.is_ordered || declared.is_unique {
            tokio::select! {
                done = self.others_are_here(&drive.record) => done?,
                () = drive.interruption.comes() => return Ok(()),
            }
        }
        let isolate_to = store
            .end()
            .await
            .map_err(failed("the end of the log cannot be read"))?;
        let mut keys = Vec::new();
        keys.extend(declared.is_ordered.then_some(QueueKey::Order));
        keys.extend(declared.is_unique.then_some(QueueKey::Unique));
        let source = Source {
            log: drive.log.reader(),
            store: Arc::clone(store),
            selection,
            types: drive.record.types.clone(),
            follower: self.follower.clone(),
            lane: self.lane,
            reaction: reaction.id,
            revision: drive.record.revision,
            until: drive.record.until,
            keys,
        };
        let worker = &self.shared.worker;
        let lane = Lane {
            plan: Arc::clone(plan),
            isolate: (drive.record.begun, isolate_to),
            window: Window::new(drive.record.position, declared.is_ordered),
            attempts: Attempts::new(
                Arc::clone(plan),
                reaction.id,
                Arc::clone(worker),
                drive.leadership.clone(),
                self.shared.runtime.clone().unwrap_or_else(Handle::current),
            ),
            outcomes: Outcomes::new(reaction.id, Arc::clone(worker), declared, drive.stepper),
            queue: Queue::new(
                Arc::clone(store),
                Arc::clone(plan),
                reaction.id,
                Arc::clone(worker),
                Arc::clone(&self.shared.turns),
            ),
            rate: Rate::new(plan.reaction.rate_per_second, spec.lanes),
            source: Arc::new(source),
            record: drive.record,
            log: drive.log,
            leadership: drive.leadership,
            store: Arc::clone(store),
            fetching: None,
            fetches: 0,
            fetch_at: Instant::now(),
            quiet_at: Instant::now(),
            reopening: None,
            reopened_after: Position::START,
            has_reopened: false,
            checking: None,
            queued: HashMap::new(),
            started: HashSet::new(),
            claims: 0,
            leaving: false,
            backoff: Backoff::new(AGAIN.0, AGAIN.1),
            oldest_due: OldestDue::new(
                Arc::clone(&plan.reaction.name),
                Arc::clone(&self.shared.metrics),
            ),
            metrics: Arc::clone(&self.shared.metrics),
        };
        lane.run(drive.interruption, drive.metrics).await
    }
}

impl Reactor {
    /// Waits until no other lane has events of an earlier declaration, which may be of the same keys.
    async fn others_are_here(&self, own: &FollowerRecord) -> Result<(), DriveError> {
        loop {
            let reaction = self.shared.store.reaction(&self.plan.reaction.name).await;
            let reaction = reaction.map_err(failed("its reaction cannot be read"))?;
            let behind = |lane: &FollowerRecord| {
                lane.name != own.name && lane.until <= own.position && lane.position < lane.until
            };
            if !reaction.is_some_and(|reaction| reaction.lanes.iter().any(behind)) {
                return Ok(());
            }
            tokio::time::sleep(CATCH_UP).await;
        }
    }
}

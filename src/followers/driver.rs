//! Followers that decide themselves when their position moves.

use super::follower::LogReader;
use super::lag::FollowerMetrics;
use super::log_end::LogEnd;
use crate::event::Cause;
use crate::maintenance::leader::Leadership;
use crate::store::commit_log::{Chunk, Position, Selection, Span, TypePatterns};
use crate::store::followers::{Also, FollowerRecord, Step};
use crate::store::leases::{Fenced, Lease};
use crate::store::transaction::{Effect, EffectError};
use crate::store::{CommitLog, FollowerStore, StoreError};
use crate::supervision::{Lifecycle, Phase};
use async_trait::async_trait;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// A follower with a loop of its own.
#[async_trait]
pub(crate) trait Driver: Send + Sync + 'static {
    /// The follower's name.
    fn name(&self) -> &str;

    /// Works until the record has changed or the process drains; then the record is read again. When the lease is lost,
    /// this is dropped.
    ///
    /// # Errors
    /// What failed. It is called again after a pause.
    async fn drive(&self, drive: Drive<'_>) -> Result<(), DriveError>;
}

/// Declared followers that have a driver, of which there may be more later.
#[async_trait]
pub(crate) trait DriverSource: Send + Sync + 'static {
    /// A driver for each follower that there is. It is called again after each command and declaration; a driver of a
    /// follower that has one is dropped.
    async fn drivers(&self) -> Result<Vec<Arc<dyn Driver>>, StoreError>;
}

/// What failed, and how.
#[derive(Debug)]
pub(crate) struct DriveError {
    pub(crate) what: &'static str,
    pub(crate) error: StoreError,
}

/// A driver's place in the log, under one lease.
pub(crate) struct Drive<'a> {
    /// As it was when the drive began.
    pub(crate) record: FollowerRecord,
    pub(crate) stepper: Stepper,
    pub(crate) log: LogView,
    pub(crate) leadership: Leadership,
    pub(crate) interruption: Interruption,
    pub(crate) metrics: &'a FollowerMetrics,
}

/// Says that a driver may have to end.
pub(crate) struct Interruption {
    commands: watch::Receiver<u64>,
    lifecycle: Lifecycle,
}

impl Interruption {
    /// Waits until a follower was changed by command, perhaps another one, or the process drains.
    pub(crate) async fn comes(&mut self) {
        tokio::select! {
            // An error says that the process is at its end.
            _ = self.commands.changed() => {}
            () = self.lifecycle.reached(Phase::Draining) => {}
        }
    }

    /// Whether the process drains.
    pub(crate) fn is_drain(&self) -> bool {
        self.lifecycle.phase() >= Phase::Draining
    }
}

/// Stores positions. It is handed from step to step, since each follows the one before it.
pub(crate) struct Stepper {
    store: Arc<dyn FollowerStore>,
    lease: Lease,
    follower: String,
    n: i64,
    pub(crate) position: Position,
}

impl Stepper {
    /// Stores a position together with an effect. `false` if the lease is lost, or the position was moved: by a step
    /// whose answer was lost, perhaps.
    ///
    /// # Errors
    /// Nothing was stored.
    pub(crate) async fn step(
        &mut self,
        to: Position,
        begun: u32,
        effect: Arc<dyn Effect>,
    ) -> Result<bool, EffectError> {
        let step = Step {
            lease: self.lease.clone(),
            follower: self.follower.clone(),
            revision: None,
            n: self.n,
            to,
            begun,
            also: Also::Nothing,
        };
        let stepping = AssertUnwindSafe(self.store.step(step, effect)).catch_unwind();
        let done = stepping.await.unwrap_or_else(|_| {
            let message = "the store panicked";
            Err(StoreError::transient(Cause::Panic, message).into())
        })?;
        if done == Fenced::Done(()) {
            self.n = self.n.saturating_add(1);
            self.position = to;
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes in what the store has, after a step whose outcome is not known or that was refused. `None` if the
    /// follower is gone.
    pub(crate) async fn reload(&mut self) -> Result<Option<FollowerRecord>, StoreError> {
        let record = self.store.follower(&self.follower).await?;
        if let Some(record) = &record {
            self.n = record.n;
            self.position = record.position;
        }
        Ok(record)
    }
}

/// The log as a driver sees it.
pub(crate) struct LogView {
    log: Arc<dyn CommitLog>,
    turns: Arc<Semaphore>,
    end: watch::Receiver<LogEnd>,
}

impl LogView {
    /// The end of the log as far as it is known, and whether there is nothing of these types before it.
    pub(crate) fn end(&mut self, types: &TypePatterns, after: Position) -> (Position, bool) {
        let log = self.end.borrow_and_update();
        (log.end, log.is_quiet(types, after))
    }

    /// Waits for a later end.
    pub(crate) async fn news(&mut self) {
        if self.end.changed().await.is_err() {
            // The process is at its end.
            std::future::pending().await
        }
    }

    /// Reads in one of the turns of the followers.
    pub(crate) fn reader(&self) -> LogAccess {
        LogAccess {
            log: Arc::clone(&self.log),
            turns: Arc::clone(&self.turns),
        }
    }
}

/// Reads the log.
#[derive(Clone)]
pub(crate) struct LogAccess {
    log: Arc<dyn CommitLog>,
    turns: Arc<Semaphore>,
}

impl LogAccess {
    /// See [`CommitLog::read_after`].
    pub(crate) async fn read(&self, types: TypePatterns, span: Span) -> Result<Chunk, StoreError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let selection = Selection {
            types,
            ..Selection::default()
        };
        self.log.read_after(&selection, span).await
    }

    /// See [`CommitLog::stretches`].
    pub(crate) async fn commit_ends(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let stretches = self.log.stretches(after, limit).await?;
        Ok(stretches.into_iter().map(|stretch| stretch.end).collect())
    }
}

impl LogReader<'_> {
    /// Has a driver work from a record on. `true` if it ended by command.
    pub(super) async fn drive(&mut self, driver: &dyn Driver, record: FollowerRecord) -> bool {
        let params = self.params;
        let drive = Drive {
            stepper: Stepper {
                store: Arc::clone(&params.store),
                lease: self.lease.clone(),
                follower: record.name.clone(),
                n: record.n,
                position: record.position,
            },
            log: LogView {
                log: Arc::clone(&params.log),
                turns: Arc::clone(&params.turns),
                end: self.end.clone(),
            },
            record,
            leadership: params.leadership.clone(),
            interruption: Interruption {
                commands: self.commands.clone(),
                lifecycle: params.lifecycle.clone(),
            },
            metrics: self.metrics,
        };
        match driver.drive(drive).await {
            Ok(()) => self.backoff.reset(),
            Err(DriveError { what, error }) => self.failed(what, &error),
        }
        self.is_commanded()
    }
}

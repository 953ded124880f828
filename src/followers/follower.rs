//! `Follower`: follows the log for one registered follower, while this process holds its lease.

use super::chunk::ChunkSize;
use super::lag::FollowerMetrics;
use super::log_end::{LogEnd, LogWatch};
use super::registry::Work;
use crate::maintenance::leader::Leadership;
use crate::metrics::Metrics;
use crate::store::commit_log::{LoggedEvent, Position, Selection, Span};
use crate::store::followers::{FollowerRecord, FollowerState};
use crate::store::leases::Lease;
use crate::store::{CommitLog, FollowerStore, StoreError};
use crate::supervision::{Backoff, Lifecycle, Phase};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// Most bytes of payloads in a chunk, roughly.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// How long progress over events that do not concern it may stay unstored.
const STORE_PROGRESS: Duration = Duration::from_secs(1);
/// How long to wait when a step is refused although the record has not changed: the lease is lost then.
const LOST: Duration = Duration::from_secs(1);
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a follower is wired to.
#[derive(Clone)]
pub(super) struct FollowerParams {
    pub(super) work: Work,
    pub(super) leadership: Leadership,
    pub(super) log: Arc<dyn CommitLog>,
    pub(super) store: Arc<dyn FollowerStore>,
    pub(super) watch: LogWatch,
    /// Followers that may hold a chunk at a time.
    pub(super) turns: Arc<Semaphore>,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
}

/// Follows the log for one registered follower.
pub struct Follower {
    params: FollowerParams,
}

impl Follower {
    pub(super) fn new(params: FollowerParams) -> Self {
        Self { params }
    }
}

impl Actor for Follower {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(
            async move {
                match &params.work {
                    // It ends what it has begun.
                    Work::Drive(_) => params.run().await,
                    Work::Project(_) | Work::Send(_) => {
                        let lifecycle = params.lifecycle.clone();
                        lifecycle.unless_draining(params.run()).await;
                    }
                }
            }
            .into_actor(self),
        );
    }
}

// A restart reads its record again.
impl Supervised for Follower {}

impl FollowerParams {
    /// Follows whenever this process holds the lease, until it drains.
    async fn run(mut self) {
        loop {
            let lease = self.leadership.lease().await;
            let _at_work = self.leadership.at_work();
            let metrics = FollowerMetrics::new(self.work.name(), Arc::clone(&self.metrics));
            let reader = LogReader {
                end: self.watch.subscribe(),
                commands: self.watch.commands(),
                lease: lease.clone(),
                size: ChunkSize::default(),
                backoff: Backoff::new(AGAIN.0, AGAIN.1),
                tries: 0,
                dead_in_a_row: 0,
                pause: None,
                metrics: &metrics,
                params: &self,
            };
            let end = self.watch.end.subscribe();
            let mut leadership = self.leadership.clone();
            tokio::select! {
                () = reader.follow() => return,
                () = metrics.measure(&*self.log, &end) => {}
                () = leadership.lost(&lease) => {}
            }
        }
    }
}

/// A follower at work, under one lease.
pub(super) struct LogReader<'a> {
    pub(super) params: &'a FollowerParams,
    pub(super) lease: Lease,
    pub(super) size: ChunkSize,
    pub(super) backoff: Backoff,
    /// Failures of the chunk in hand that may pass by themselves.
    pub(super) tries: u32,
    pub(super) dead_in_a_row: u32,
    /// To be waited for before the next try.
    pause: Option<Duration>,
    pub(super) metrics: &'a FollowerMetrics,
    pub(super) end: watch::Receiver<LogEnd>,
    pub(super) commands: watch::Receiver<u64>,
}

/// Where a follower is.
pub(super) struct Cursor {
    pub(super) record: FollowerRecord,
    /// All up to here is done, or does not concern it.
    pub(super) read: Position,
    pub(super) stored_at: Instant,
}

/// What follows a step.
pub(super) enum Next {
    /// The position is stored.
    Moved,
    /// Nothing was done, and the same is tried again.
    Again,
    /// The record has changed, or the lease is lost.
    Reload,
}

impl LogReader<'_> {
    /// Follows the log until the process drains.
    async fn follow(mut self) {
        let mut before = None;
        loop {
            self.rest().await;
            if self.params.lifecycle.phase() >= Phase::Draining {
                return;
            }
            self.commands.mark_unchanged();
            let record = match self.params.store.follower(self.params.work.name()).await {
                Ok(Some(record)) => record,
                Ok(None) => {
                    // Removed by command, which no running follower is: another one has the lease.
                    self.changed().await;
                    continue;
                }
                Err(error) => {
                    self.failed("its record cannot be read", &error);
                    continue;
                }
            };
            self.metrics.moved_to(record.position);
            self.metrics.state(record.state);
            if record.state != FollowerState::Running {
                self.dead_in_a_row = 0;
                self.changed().await;
                continue;
            }
            let seen = (record.revision, record.n);
            if before.replace(seen) == Some(seen) {
                // Nothing has changed, and yet a step was refused.
                tokio::time::sleep(LOST).await;
            }
            let cursor = Cursor {
                read: record.position,
                stored_at: Instant::now(),
                record,
            };
            if self.go_on(cursor).await {
                before = None;
            }
        }
    }

    /// Follows until the record must be read again; `true` if by command.
    async fn go_on(&mut self, mut cursor: Cursor) -> bool {
        if cursor.record.rebuild {
            self.rebuild(&mut cursor).await;
            return false;
        }
        if cursor.record.replays > 0 {
            return self.replay(&mut cursor).await.is_ok();
        }
        if let Work::Drive(driver) = &self.params.work {
            return self.drive(&**driver, cursor.record).await;
        }
        loop {
            self.rest().await;
            if self.is_commanded() {
                return true;
            }
            if cursor.read >= cursor.record.until {
                // What it subscribes to changes here.
                return !matches!(self.store_progress(&mut cursor).await, Next::Reload);
            }
            let unstored = cursor.read > cursor.record.position;
            if unstored && cursor.stored_at.elapsed() >= STORE_PROGRESS {
                if matches!(self.store_progress(&mut cursor).await, Next::Reload) {
                    return false;
                }
                continue;
            }
            let (end, quiet) = {
                let log = self.end.borrow_and_update();
                (log.end, log.is_quiet(&cursor.record.types, cursor.read))
            };
            if cursor.read >= end {
                self.wait(unstored.then_some(cursor.stored_at)).await;
            } else if quiet {
                cursor.read = end.min(cursor.record.until);
                self.metrics.moved_to(cursor.read);
            } else if matches!(self.chunk(&mut cursor).await, Next::Reload) {
                return false;
            }
        }
    }

    /// Waits for news, or until unstored progress is due.
    async fn wait(&mut self, stored_at: Option<Instant>) {
        let due = async {
            match stored_at {
                Some(at) => tokio::time::sleep_until((at + STORE_PROGRESS).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Errors say that the process is at its end.
            _ = self.end.changed() => {}
            _ = self.commands.changed() => self.commands.mark_changed(),
            () = due => {}
        }
    }

    /// Waits for a command.
    async fn changed(&mut self) {
        tokio::select! {
            changed = self.commands.changed() => if changed.is_err() {
                std::future::pending().await
            },
            () = self.params.lifecycle.reached(Phase::Draining) => {}
        }
    }

    /// Reads a chunk and does what is to be done with it.
    async fn chunk(&mut self, cursor: &mut Cursor) -> Next {
        let params = self.params;
        // The semaphore is never closed.
        let turn = params.turns.acquire().await;
        let selection = Selection {
            types: cursor.record.types.clone(),
            ..Selection::default()
        };
        let span = Span {
            after: cursor.read,
            until: cursor.record.until,
            events: self.size.events(),
            bytes: CHUNK_BYTES,
        };
        let chunk = match params.log.read_after(&selection, span).await {
            Ok(chunk) => chunk,
            Err(error) => {
                // It may be the size of what was asked for.
                self.size.failed(span.events);
                self.failed("the log cannot be read", &error);
                return Next::Again;
            }
        };
        if chunk.events.is_empty() {
            cursor.read = chunk.read_to;
            self.metrics.moved_to(cursor.read);
            return Next::Again;
        }
        let payload = |logged: &LoggedEvent| logged.event.event_data.get().len();
        let payloads = chunk.events.iter().map(payload).sum();
        self.size.read(chunk.events.len(), payloads, CHUNK_BYTES);
        let (events, began) = (chunk.events.len(), Instant::now());
        let next = match &params.work {
            Work::Project(projection) => {
                self.apply(cursor, projection, chunk.events.into(), chunk.read_to)
                    .await
            }
            Work::Send(outlet) => {
                // Its receiver may take its time.
                drop(turn);
                self.send(cursor, &**outlet, chunk.events, chunk.read_to)
                    .await
            }
            // See `go_on`.
            Work::Drive(_) => Next::Reload,
        };
        if matches!(next, Next::Moved) {
            self.size.applied(events, began.elapsed());
            self.has_moved(cursor, events);
        }
        next
    }

    /// Notes that so many events are applied or sent, and the position is stored behind them.
    pub(super) fn has_moved(&mut self, cursor: &Cursor, events: usize) {
        self.metrics.applied(events);
        self.metrics.moved_to(cursor.read);
        self.backoff.reset();
        (self.tries, self.dead_in_a_row) = (0, 0);
    }

    /// Whether a command has come.
    pub(super) fn is_commanded(&self) -> bool {
        self.commands.has_changed().unwrap_or(false)
    }

    /// Waits for the time that was set after a failure.
    pub(super) async fn rest(&mut self) {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Logs a failure that may pass, and sets a time to wait.
    pub(super) fn failed(&mut self, what: &str, error: &StoreError) {
        self.metrics.failed(error.kind().as_str());
        let pause = self.backoff.next_pause();
        tracing::warn!(
            follower = self.params.work.name(),
            kind = error.kind().as_str(),
            %error,
            again_in_ms = pause.as_millis() as u64,
            "follower waits: {what}"
        );
        self.pause = Some(pause);
    }
}

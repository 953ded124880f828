//! The steps of a follower: each stores a position, and what goes with it.

use super::follower::{Cursor, LogReader, Next};
use super::projection::Projection;
use super::registry::Work;
use super::transactional::{ApplyChunk, Reset};
use crate::event::{Cause, id};
use crate::store::commit_log::{LoggedEvent, Position};
use crate::store::dead_letters::{DeadLetter, DeadLetterFailure};
use crate::store::followers::{Also, FollowerState, OnError, Step};
use crate::store::leases::Fenced;
use crate::store::transaction::{Effect, EffectError, NoEffect};
use crate::store::{ErrorKind, StoreError};
use chrono::Utc;
use futures::FutureExt;
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Failures of one chunk that may pass by themselves, before it is halved.
const TRIES: u32 = 3;
/// Events in a row that may become dead letters. More are not the events' fault.
const DEAD_IN_A_ROW: u32 = 10;
/// Replays that are done before the log is looked at again.
const REPLAYS: usize = 100;

impl LogReader<'_> {
    /// Stores a position together with an effect.
    async fn step(
        &self,
        cursor: &mut Cursor,
        to: Position,
        also: Also,
        effect: Arc<dyn Effect>,
    ) -> Result<Next, EffectError> {
        let step = Step {
            lease: self.lease.clone(),
            follower: cursor.record.name.clone(),
            revision: Some(cursor.record.revision),
            n: cursor.record.n,
            to,
            begun: 0,
            also,
        };
        let stepping = AssertUnwindSafe(self.params.store.step(step, effect)).catch_unwind();
        let done = stepping.await.unwrap_or_else(|_| {
            let message = "the follower's code panicked";
            Err(StoreError::transient(Cause::Panic, message).into())
        })?;
        match done {
            Fenced::Done(()) => {
                cursor.record.n = cursor.record.n.saturating_add(1);
                cursor.record.position = to;
                cursor.read = to;
                cursor.stored_at = Instant::now();
                Ok(Next::Moved)
            }
            Fenced::Lost => Ok(Next::Reload),
        }
    }

    /// Stores the position over events that do not concern it.
    pub(super) async fn store_progress(&mut self, cursor: &mut Cursor) -> Next {
        let to = cursor.read;
        match self
            .step(cursor, to, Also::Nothing, Arc::new(NoEffect))
            .await
        {
            Ok(next) => next,
            Err(error) => {
                self.wait_after("the position cannot be stored", error);
                Next::Again
            }
        }
    }

    /// Has the follower wait after an error that says nothing about an event.
    fn wait_after(&mut self, what: &str, error: EffectError) {
        let error = match error {
            EffectError::Store(error) => error,
            EffectError::Refused(message) => StoreError::new(ErrorKind::Transient, message),
        };
        self.failed(what, &error);
    }

    /// Applies a chunk; see [`Projection::apply`] for what follows a failure.
    pub(super) async fn apply(
        &mut self,
        cursor: &mut Cursor,
        projection: &Arc<dyn Projection>,
        events: Arc<[LoggedEvent]>,
        to: Position,
    ) -> Next {
        let effect = Arc::new(ApplyChunk {
            projection: Arc::clone(projection),
            events: Arc::clone(&events),
        });
        match self.step(cursor, to, Also::Nothing, effect).await {
            Ok(next) => next,
            Err(error) => self.not_applied(cursor, &events, error).await,
        }
    }

    /// Does what follows when a chunk could not be applied or sent.
    pub(super) async fn not_applied(
        &mut self,
        cursor: &mut Cursor,
        events: &[LoggedEvent],
        error: EffectError,
    ) -> Next {
        if !self.is_the_events(&error) {
            // It may be the size of the chunk that is too much for a limit of the database.
            self.size.failed(events.len());
            self.wait_after("a chunk cannot be applied", error);
            return Next::Again;
        }
        self.tries = 0;
        let Some(first) = events.first() else {
            return Next::Again;
        };
        if self.size.failed(events.len()) {
            tracing::debug!(
                follower = cursor.record.name,
                events = events.len(),
                %error,
                "a chunk cannot be applied as a whole, and is halved"
            );
            return Next::Again;
        }
        self.fails_alone(cursor, first, &error).await
    }

    /// Whether an error is that of the events, and not of the store. What may pass is tried a few times.
    fn is_the_events(&mut self, error: &EffectError) -> bool {
        match error {
            EffectError::Refused(_) => true,
            EffectError::Store(error) => match error.kind() {
                ErrorKind::Outage | ErrorKind::Operator => false,
                ErrorKind::Poison => true,
                ErrorKind::Transient if error.cause() == Cause::Panic => true,
                ErrorKind::Transient => {
                    self.tries += 1;
                    self.tries >= TRIES
                }
            },
        }
    }

    /// One event cannot be applied: the follower stops before it, or it becomes a dead letter.
    pub(super) async fn fails_alone(
        &mut self,
        cursor: &mut Cursor,
        failed: &LoggedEvent,
        error: &EffectError,
    ) -> Next {
        self.metrics.failed(error.kind());
        let (name, event) = (&cursor.record.name, &failed.event);
        let generation = self.params.log.generation().await.unwrap_or(0);
        let mut reason = format!(
            "cannot apply event {} of type {} at position {generation}-{}: {error}",
            event.event_id, event.event_type, failed.position
        );
        if cursor.record.on_error == OnError::DeadLetter {
            if self.dead_in_a_row < DEAD_IN_A_ROW {
                return self.dead_letter(cursor, failed, error).await;
            }
            reason = format!("{DEAD_IN_A_ROW} events in a row failed; {reason}");
        }
        let stopped = self
            .params
            .store
            .stop_follower(
                &self.lease,
                name,
                cursor.record.revision,
                FollowerState::Broken,
                &reason,
            )
            .await;
        match stopped {
            Ok(true) => tracing::error!(
                follower = name,
                reason,
                "follower broken; resume it when the cause is gone"
            ),
            // A command has come meanwhile, or the lease is lost.
            Ok(false) => {}
            Err(error) => {
                self.failed("it cannot be stopped", &error);
                return Next::Again;
            }
        }
        Next::Reload
    }

    async fn dead_letter(
        &mut self,
        cursor: &mut Cursor,
        failed: &LoggedEvent,
        error: &EffectError,
    ) -> Next {
        let letter = letter(&cursor.record.name, failed, error);
        let also = Also::DeadLetter(Box::new(letter));
        match self
            .step(cursor, failed.position, also, Arc::new(NoEffect))
            .await
        {
            Ok(Next::Moved) => {
                self.dead_in_a_row += 1;
                self.metrics.dead_lettered();
                tracing::error!(
                    follower = cursor.record.name,
                    event_id = %failed.event.event_id,
                    %error,
                    "event dead-lettered: the follower cannot apply it"
                );
                // Not a success that makes chunks grow at once, or resets the number in a row.
                Next::Again
            }
            Ok(next) => next,
            Err(error) => {
                self.wait_after("a dead letter cannot be stored", error);
                Next::Again
            }
        }
    }

    /// Begins a rebuild.
    pub(super) async fn rebuild(&mut self, cursor: &mut Cursor) {
        let effect: Arc<dyn Effect> = match &self.params.work {
            Work::Project(projection) => Arc::new(Reset(Arc::clone(projection))),
            Work::Send(_) | Work::Drive(_) => Arc::new(NoEffect),
        };
        match self
            .step(cursor, Position::START, Also::Rebuild, effect)
            .await
        {
            Ok(Next::Moved) => tracing::info!(follower = cursor.record.name, "rebuild begins"),
            Ok(_) => {}
            Err(error) => self.wait_after("the rebuild cannot begin", error),
        }
    }

    /// Applies dead letters' events again, each in a transaction of its own.
    ///
    /// # Errors
    /// The record must be read again.
    pub(super) async fn replay(&mut self, cursor: &mut Cursor) -> Result<(), Changed> {
        let name = cursor.record.name.clone();
        let pending = match self.params.store.pending_replays(&name, REPLAYS).await {
            Ok(pending) => pending,
            Err(error) => {
                self.failed("its replays cannot be read", &error);
                return Ok(());
            }
        };
        for replay in pending {
            self.tries = 0;
            let logged = LoggedEvent {
                position: replay.position,
                event: replay.event,
            };
            // What may pass is tried here until it is decided, so that the next one does not begin anew.
            while !self.replay_one(cursor, replay.letter, &logged).await? {
                self.rest().await;
            }
        }
        Ok(())
    }

    /// Applies one dead letter's event. `false` when it must be tried again.
    async fn replay_one(
        &mut self,
        cursor: &mut Cursor,
        letter: Uuid,
        logged: &LoggedEvent,
    ) -> Result<bool, Changed> {
        let effect: Arc<dyn Effect> = match &self.params.work {
            Work::Project(projection) => Arc::new(ApplyChunk {
                projection: Arc::clone(projection),
                events: Arc::from([logged.clone()]),
            }),
            Work::Send(outlet) => {
                let sent = self.deliver(&**outlet, std::slice::from_ref(logged)).await;
                if let Err(failed) = sent {
                    return self.replay_failed(cursor, logged, failed.error).await;
                }
                Arc::new(NoEffect)
            }
            // It has no letters.
            Work::Drive(_) => Arc::new(NoEffect),
        };
        let stored = cursor.record.position;
        match self
            .step(cursor, stored, Also::Replayed(letter), effect)
            .await
        {
            Ok(Next::Moved) => {
                self.metrics.applied(1);
                Ok(true)
            }
            Ok(_) => Err(Changed),
            Err(error) => self.replay_failed(cursor, logged, error).await,
        }
    }

    /// Makes the letter dead again, or waits. `false` when it must be tried again: a few times what may
    /// pass, and without end what says nothing about the event.
    async fn replay_failed(
        &mut self,
        cursor: &mut Cursor,
        failed: &LoggedEvent,
        error: EffectError,
    ) -> Result<bool, Changed> {
        if !self.is_the_events(&error) {
            self.wait_after("a dead letter cannot be applied", error);
            // A pause or another command is not kept waiting.
            return match self.is_commanded() {
                true => Err(Changed),
                false => Ok(false),
            };
        }
        self.metrics.failed(error.kind());
        let letter = letter(&cursor.record.name, failed, &error);
        let also = Also::ReplayFailed(Box::new(letter));
        let stored = cursor.record.position;
        match self.step(cursor, stored, also, Arc::new(NoEffect)).await {
            Ok(Next::Moved) => Ok(true),
            Ok(_) => Err(Changed),
            Err(error) => {
                self.wait_after("a dead letter cannot be stored", error);
                Ok(false)
            }
        }
    }
}

/// The record has changed, or the lease is lost.
pub(super) struct Changed;

/// The dead letter of an event that a follower cannot apply. Its body is the event as JSON.
fn letter(follower: &str, failed: &LoggedEvent, error: &EffectError) -> DeadLetter {
    let event = &failed.event;
    let failure = DeadLetterFailure {
        at: Utc::now(),
        cause: Cause::Follower.as_str().to_owned(),
        error: error.to_string(),
        sqlstate: None,
        attempts: 1,
    };
    let id = id::of_follower_letter(follower, event.event_id);
    // A row that was read as JSON can be written as JSON.
    let body = serde_json::to_vec(event).unwrap_or_default();
    let mut letter = DeadLetter::new(id, failure, follower, body);
    letter.event_id = Some(event.event_id);
    letter.event_type = Some(event.event_type.clone());
    letter.content_type = Some("application/json".to_owned());
    letter.headers.insert(
        "position".to_owned(),
        Value::String(failed.position.to_string()),
    );
    letter
}

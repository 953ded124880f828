//! `Completer`: marks events as processed, once all their runs are decided.
//!
//! It is a follower of its own behind the lanes of all reactions of the database, and does not read the events: one
//! statement marks those of a stretch that have no open or failed run. A run that is open then marks its event when
//! it ends.

use crate::followers::driver::{Drive, DriveError, Driver};
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::followers::{Declaration, FollowerKind, OnError, Start};
use crate::store::reactions::MarkProcessed;
use crate::store::transaction::EffectError;
use crate::store::{ErrorKind, Store, StoreError};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the follower.
pub(super) const NAME: &str = "reactions:processed";
/// Commits in the first stretch, and the most.
const COMMITS: (usize, usize) = (32, 1_000);
/// How long a stretch should take.
const AIM: Duration = Duration::from_millis(100);
/// First and longest pause while lanes do not move.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Completer {
    pub(super) store: Arc<dyn Store>,
}

/// To be declared before the first reaction: what is written as not processed from then on lies behind it.
pub(super) fn declaration() -> Declaration {
    Declaration {
        name: NAME.to_owned(),
        kind: FollowerKind::Transactional,
        types: TypePatterns::default(),
        start: Start::Now,
        on_error: OnError::Stop,
    }
}

fn failed(error: StoreError) -> DriveError {
    let what = "events cannot be marked as processed";
    DriveError { what, error }
}

#[async_trait]
impl Driver for Completer {
    fn name(&self) -> &str {
        NAME
    }

    async fn drive(&self, mut drive: Drive<'_>) -> Result<(), DriveError> {
        let (mut commits, mut pause) = (COMMITS.0, PAUSES.0);
        let all = TypePatterns::default();
        loop {
            let after = drive.stepper.position;
            drive.metrics.moved_to(after);
            let (end, _) = drive.log.end(&all, after);
            if after >= end {
                tokio::select! {
                    () = drive.log.news() => continue,
                    () = drive.interruption.comes() => return Ok(()),
                }
            }
            let low = self.low().await.map_err(failed)?.min(end);
            if low <= after {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drive.interruption.comes() => return Ok(()),
                }
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
            pause = PAUSES.0;
            let ends = drive
                .log
                .reader()
                .commit_ends(after, commits)
                .await
                .map_err(failed)?;
            let until = match ends.last() {
                Some(last) if ends.len() >= commits => low.min(*last),
                _ => low,
            };
            let began = Instant::now();
            let marked = drive
                .stepper
                .step(until, 0, Arc::new(MarkProcessed { after, until }))
                .await;
            match marked {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // A handler's transaction may be open with a run that it completes.
                Err(EffectError::Store(error)) if error.kind() == ErrorKind::Transient => {
                    tracing::warn!(%error, "events are marked as processed later");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSES.1) => continue,
                        () = drive.interruption.comes() => return Ok(()),
                    }
                }
                Err(EffectError::Store(error)) => return Err(failed(error)),
                Err(EffectError::Refused(message)) => {
                    return Err(failed(StoreError::new(ErrorKind::Transient, message)));
                }
            }
            if began.elapsed() > AIM * 2 {
                commits = (commits / 2).max(1);
            } else if began.elapsed() < AIM / 2 {
                commits = (commits * 2).min(COMMITS.1);
            }
        }
    }
}

impl Completer {
    /// Behind everything that every lane has decided.
    async fn low(&self) -> Result<Position, StoreError> {
        Ok(self.store.decided_by_all().await?.unwrap_or(Position::MAX))
    }
}

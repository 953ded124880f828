//! `Completer`: marks events as processed, once all their runs are decided.
//!
//! It is a follower of its own behind the lanes of all reactions of the database, and does not read the events: one
//! statement marks those of a stretch that have no open or failed run. A run that is open then marks its event when
//! it ends. Each reaction is marked up to a position of its own, so that one that stands still keeps no events from
//! being marked but its own; the follower's position is the least of these, and never goes back.

use crate::followers::driver::{Drive, DriveError, Driver};
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::followers::{Declaration, FollowerKind, OnError, Start};
use crate::store::reactions::{MarkProcessed, ReactionPosition};
use crate::store::transaction::{Effect, EffectError, NoEffect};
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
        let mut before = Position::START;
        let all = TypePatterns::default();
        loop {
            drive.metrics.moved_to(drive.stepper.position);
            let (end, _) = drive.log.end(&all, drive.stepper.position);
            let reached = self.store.reaction_positions().await.map_err(failed)?;
            let mut stretch = next_stretch(&reached, before, end);
            if let Some(MarkProcessed { after, until }) = &mut stretch {
                let log = drive.log.reader();
                let ends = log.commit_ends(*after, commits).await.map_err(failed)?;
                if let Some(last) = ends.last()
                    && ends.len() >= commits
                {
                    *until = (*until).min(*last);
                }
            }
            let to = marked_to(&reached, stretch, end).max(drive.stepper.position);
            if stretch.is_none() && to == drive.stepper.position {
                // What is left, if anything, is that of reactions that stand still.
                let is_done = |one: &ReactionPosition| one.marked_to >= end;
                if reached.is_empty() || reached.iter().any(is_done) {
                    tokio::select! {
                        () = drive.log.news() => {}
                        () = tokio::time::sleep(PAUSES.1) => {}
                        () = drive.interruption.comes() => return Ok(()),
                    }
                    pause = PAUSES.0;
                    continue;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drive.interruption.comes() => return Ok(()),
                }
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
            pause = PAUSES.0;
            let effect: Arc<dyn Effect> = match stretch {
                Some(stretch) => {
                    before = stretch.until;
                    Arc::new(stretch)
                }
                None => Arc::new(NoEffect),
            };
            let began = Instant::now();
            match drive.stepper.step(to, 0, effect).await {
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

/// The next stretch with something to mark, if there is one. It begins with a reaction that is marked further than the
/// stretch before, so that one with much to catch up takes turns with the others, and ends where no reaction
/// follows on.
fn next_stretch(
    reached: &[ReactionPosition],
    before: Position,
    end: Position,
) -> Option<MarkProcessed> {
    let mut ahead: Vec<(Position, Position)> = reached
        .iter()
        .map(|one| (one.marked_to, one.decided_to.min(end)))
        .filter(|(from, to)| from < to)
        .collect();
    ahead.sort();
    let first = ahead.iter().find(|(from, _)| *from > before);
    let &(after, mut until) = first.or(ahead.first())?;
    for (from, to) in ahead {
        if from > after && from <= until {
            until = until.max(to);
        }
    }
    Some(MarkProcessed { after, until })
}

/// Up to where all reactions are marked behind this stretch.
fn marked_to(
    reached: &[ReactionPosition],
    stretch: Option<MarkProcessed>,
    end: Position,
) -> Position {
    let behind = |one: &ReactionPosition| match stretch {
        Some(MarkProcessed { after, until }) if (after..until).contains(&one.marked_to) => {
            one.decided_to.min(until)
        }
        _ => one.marked_to,
    };
    reached.iter().map(behind).min().unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(all: &[(i64, i64)]) -> Vec<ReactionPosition> {
        let position = |(marked_to, decided_to): &(i64, i64)| ReactionPosition {
            marked_to: Position(*marked_to),
            decided_to: Position(*decided_to),
        };
        all.iter().map(position).collect()
    }

    fn next(all: &[(i64, i64)], before: i64) -> Option<(i64, i64)> {
        let next = next_stretch(&reached(all), Position(before), Position(100));
        next.map(|stretch| (stretch.after.0, stretch.until.0))
    }

    #[test]
    fn reactions_that_keep_pace_share_a_stretch() {
        assert_eq!(next(&[], 0), None);
        assert_eq!(next(&[(50, 50)], 0), None);
        assert_eq!(next(&[(50, 60), (55, 70), (70, 75)], 0), Some((50, 75)));
        assert_eq!(next(&[(50, i64::MAX)], 0), Some((50, 100)), "removed");
    }

    #[test]
    fn what_no_reaction_has_to_mark_is_left_out() {
        assert_eq!(next(&[(80, 90), (0, 0), (20, 30)], 0), Some((20, 30)));
    }

    #[test]
    fn one_that_catches_up_takes_turns() {
        let all = [(20, 100), (80, 90), (85, 95)];
        assert_eq!(next(&all, 19), Some((20, 100)));
        // The stretch has ended early, and so has moved one of them.
        let all = [(30, 100), (80, 90), (85, 95)];
        assert_eq!(next(&all, 30), Some((80, 95)));
        let all = [(30, 100), (90, 92), (95, 95)];
        assert_eq!(next(&all, 95), Some((30, 100)));
    }

    #[test]
    fn the_follower_is_where_the_last_reaction_is() {
        let all = reached(&[(50, 60), (55, 70), (10, 10), (80, 90)]);
        let stretch = |after, until| {
            let (after, until) = (Position(after), Position(until));
            Some(MarkProcessed { after, until })
        };
        assert_eq!(marked_to(&all, stretch(50, 70), Position(100)).0, 10);
        let all = reached(&[(50, 60), (55, i64::MAX), (80, 90)]);
        assert_eq!(marked_to(&all, stretch(50, 70), Position(100)).0, 60);
        assert_eq!(marked_to(&all, None, Position(100)).0, 50);
        assert_eq!(marked_to(&[], None, Position(100)).0, 100);
    }
}

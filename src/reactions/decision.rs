//! What follows when an attempt has ended.

use super::handler::HandlerError;
use super::reaction::Reaction;
use crate::store::reactions::Ending;
use crate::supervision::Backoff;
use std::time::Duration;

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Ended {
        ending: Ending,
        error: Option<String>,
    },
    Again {
        after: Duration,
        error: String,
        /// The attempt does not count.
        unspent: bool,
    },
}

impl Decision {
    /// What follows when the attempt with this number has ended; `counted` is how many of the attempts count towards
    /// the most that are allowed.
    pub(super) fn of(result: Result<(), HandlerError>, counted: u32, reaction: &Reaction) -> Self {
        let ended = |ending, error| Decision::Ended { ending, error };
        let (error, least) = match result {
            Ok(()) => return ended(Ending::Succeeded, None),
            Err(HandlerError::Discard(reason)) => return ended(Ending::Failed, Some(reason)),
            Err(HandlerError::Cancel(reason)) => return ended(Ending::Cancelled, Some(reason)),
            Err(HandlerError::Snooze(after)) => {
                return Decision::Again {
                    after,
                    error: String::new(),
                    unspent: true,
                };
            }
            Err(HandlerError::Failed(reason)) => (reason, Duration::ZERO),
            Err(HandlerError::RetryAfter { reason, after }) => (reason, after),
        };
        if counted >= reaction.max_attempts {
            return ended(Ending::Failed, Some(error));
        }
        let (base, max) = reaction.backoff;
        let pause = Backoff::pause(base, max, counted.saturating_sub(1));
        Decision::Again {
            after: pause.max(least),
            error,
            unspent: false,
        }
    }

    /// The word for the metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Decision::Ended { ending, .. } => ending.as_str(),
            Decision::Again { unspent: true, .. } => "snoozed",
            Decision::Again { .. } => "retried",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spent_by_failures_only() {
        let second = Duration::from_secs(1);
        let reaction = Reaction::new("r")
            .max_attempts(2)
            .backoff(second, second * 3);
        let failed = || Err(HandlerError::Failed("no".to_owned()));
        match Decision::of(failed(), 1, &reaction) {
            Decision::Again {
                after,
                error,
                unspent,
            } => {
                assert!(after >= second / 2 && after <= second, "{after:?}");
                assert_eq!((error.as_str(), unspent), ("no", false));
            }
            other => panic!("{other:?}"),
        }
        let ending = |decision| match decision {
            Decision::Ended { ending, .. } => Some(ending),
            Decision::Again { .. } => None,
        };
        assert_eq!(
            ending(Decision::of(failed(), 2, &reaction)),
            Some(Ending::Failed)
        );
        let snoozed = Decision::of(Err(HandlerError::Snooze(second)), 2, &reaction);
        assert_eq!(snoozed.as_str(), "snoozed");
        let later = HandlerError::RetryAfter {
            reason: "busy".to_owned(),
            after: second * 60,
        };
        match Decision::of(Err(later), 1, &reaction) {
            Decision::Again { after, .. } => assert_eq!(after, second * 60),
            other => panic!("{other:?}"),
        }
        let discarded = Decision::of(Err(HandlerError::Discard("gone".to_owned())), 1, &reaction);
        assert_eq!(ending(discarded), Some(Ending::Failed));
        assert_eq!(
            ending(Decision::of(Ok(()), 2, &reaction)),
            Some(Ending::Succeeded)
        );
    }
}

//! The one place that says what follows from a kind of failure.
//!
//! `store/error.rs` and `broker/error.rs` say what a failure *is*; nothing but this file says what
//! is *done* about it.

use crate::config::retry::RetrySettings;
use crate::event::{Cause, Patience};
use crate::store::ErrorKind;
use std::time::Duration;

/// How rows could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The store said so.
    Store(ErrorKind),
    /// The code that writes them crashed.
    Panic,
    /// It did not come to an end, although the store can be written otherwise.
    Timeout,
}

impl FailureKind {
    /// The word in metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Store(kind) => kind.as_str(),
            FailureKind::Panic => "panic",
            FailureKind::Timeout => "timeout",
        }
    }
}

/// What is known of the rows that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// A single row: whatever went wrong, it was this one.
    pub alone: bool,
    /// What the rows' sources can do meanwhile.
    pub patience: Patience,
    /// The store's breaker lets work through.
    pub store_up: bool,
    /// They keep their order: what is behind them waits for them.
    pub ordered: bool,
}

/// What to do with rows that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep them until the store is back, and write them again: nothing is wrong with them. Spends
    /// no attempt.
    Pause,
    /// Write them again from here for as long as their callers wait.
    TryAgain,
    /// Tell their callers to come back later.
    Refuse,
    /// Part the good from the bad: write halves.
    Isolate,
    /// Spend an attempt of this row; when they are used up it is dead-lettered with this cause.
    Spend(Cause),
    /// The same, but it is tried again from here, after the pause it would spend elsewhere, and what
    /// is behind it waits.
    Hold(Cause),
    /// Dead-letter this row now.
    Bury(Cause),
}

/// What follows from a failure.
pub fn action(kind: FailureKind, situation: Situation) -> Action {
    let Situation {
        alone,
        patience,
        store_up,
        ordered,
    } = situation;
    let spend = if ordered { Action::Hold } else { Action::Spend };
    match (kind, patience) {
        // An outage is not a bad event: no attempt is spent, nothing is put aside.
        (FailureKind::Store(ErrorKind::Outage | ErrorKind::Operator), Patience::Queue) => {
            Action::Pause
        }
        (FailureKind::Store(ErrorKind::Outage | ErrorKind::Operator), Patience::Caller) => {
            if store_up {
                Action::TryAgain
            } else {
                Action::Refuse
            }
        }
        // Whatever else it was, only a row that fails alone answers for it.
        _ if !alone => Action::Isolate,
        (FailureKind::Store(ErrorKind::Poison), _) => Action::Bury(Cause::Poison),
        (FailureKind::Store(ErrorKind::Transient), _) => spend(Cause::RetriesExhausted),
        (FailureKind::Panic, _) => spend(Cause::Panic),
        (FailureKind::Timeout, Patience::Queue) => spend(Cause::Timeout),
        (FailureKind::Timeout, Patience::Caller) => Action::Refuse,
    }
}

/// Advice for the person who reads the log.
pub fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Store(ErrorKind::Outage) => {
            "the store is away; work goes on by itself when it is back"
        }
        FailureKind::Store(ErrorKind::Operator) => {
            "the store refuses all work until somebody mends it: check schema, rights and disk"
        }
        FailureKind::Store(ErrorKind::Transient) => "this usually passes; it is tried again",
        FailureKind::Store(ErrorKind::Poison) => {
            "the store will never take this row; it is put aside"
        }
        FailureKind::Panic => "a defect in Eclusa; please report it with the panic logged above",
        FailureKind::Timeout => "the store is there but did not finish this; look for locks",
    }
}

/// What becomes of a single event that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It comes back after this delay, as this attempt.
    Again {
        /// How long it stays away.
        delay: Duration,
        /// Attempts so far, the failed one included.
        attempts: u32,
    },
    /// It goes to the dead letters.
    Dead(Cause),
}

/// Decides for an event that failed once more after `attempts` earlier attempts; `exhausted` is the
/// cause it is dead-lettered with when there are no more.
pub fn after_failure(attempts: u32, exhausted: Cause, settings: &RetrySettings) -> Verdict {
    let attempts = attempts.saturating_add(1);
    if attempts >= settings.max_attempts {
        return Verdict::Dead(exhausted);
    }
    Verdict::Again {
        delay: delay(attempts, settings),
        attempts,
    }
}

/// Pause after so many attempts: `base_delay`, then four times as long each, up to `max_delay`.
fn delay(attempts: u32, settings: &RetrySettings) -> Duration {
    let factor = 4u32
        .checked_pow(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    settings
        .base_delay
        .saturating_mul(factor)
        .min(settings.max_delay)
}

/// Every delay that [`after_failure`] can give: each has a retry queue.
pub fn delays(settings: &RetrySettings) -> Vec<Duration> {
    let mut delays: Vec<Duration> = (1..settings.max_attempts)
        .map(|attempts| delay(attempts, settings))
        .collect();
    delays.dedup();
    delays
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Situation = Situation {
        alone: true,
        patience: Patience::Queue,
        store_up: true,
        ordered: false,
    };

    fn settings(max_attempts: u32) -> RetrySettings {
        RetrySettings {
            max_attempts,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }

    #[test]
    fn an_outage_spends_no_attempt_whatever_the_situation() {
        for kind in [ErrorKind::Outage, ErrorKind::Operator] {
            let kind = FailureKind::Store(kind);
            for alone in [true, false] {
                let queued = Situation { alone, ..ALONE };
                assert_eq!(action(kind, queued), Action::Pause);
                let waiting = Situation {
                    patience: Patience::Caller,
                    ..queued
                };
                assert_eq!(action(kind, waiting), Action::TryAgain);
                let away = Situation {
                    store_up: false,
                    ..waiting
                };
                assert_eq!(action(kind, away), Action::Refuse);
            }
        }
    }

    #[test]
    fn only_a_row_that_fails_alone_answers_for_it() {
        let cases = [
            (
                FailureKind::Store(ErrorKind::Poison),
                Action::Bury(Cause::Poison),
            ),
            (
                FailureKind::Store(ErrorKind::Transient),
                Action::Spend(Cause::RetriesExhausted),
            ),
            (FailureKind::Panic, Action::Spend(Cause::Panic)),
            (FailureKind::Timeout, Action::Spend(Cause::Timeout)),
        ];
        for (kind, alone) in cases {
            assert_eq!(action(kind, ALONE), alone);
            let among_others = Situation {
                alone: false,
                ..ALONE
            };
            assert_eq!(action(kind, among_others), Action::Isolate);
        }
    }

    #[test]
    fn in_order_a_row_that_may_pass_holds_up_the_others() {
        let ordered = Situation {
            ordered: true,
            ..ALONE
        };
        let transient = FailureKind::Store(ErrorKind::Transient);
        for (kind, cause) in [
            (transient, Cause::RetriesExhausted),
            (FailureKind::Panic, Cause::Panic),
            (FailureKind::Timeout, Cause::Timeout),
        ] {
            assert_eq!(action(kind, ordered), Action::Hold(cause));
        }
        let poison = FailureKind::Store(ErrorKind::Poison);
        assert_eq!(action(poison, ordered), Action::Bury(Cause::Poison));
        let outage = FailureKind::Store(ErrorKind::Outage);
        assert_eq!(action(outage, ordered), Action::Pause);
        let among_others = Situation {
            alone: false,
            ..ordered
        };
        assert_eq!(action(transient, among_others), Action::Isolate);
    }

    #[test]
    fn delays_grow_to_the_bound_and_end_with_the_attempts() {
        let settings = settings(6);
        let seconds: Vec<u64> = delays(&settings).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 4, 16, 60]);
        let again = Verdict::Again {
            delay: Duration::from_secs(1),
            attempts: 1,
        };
        let exhausted = Cause::RetriesExhausted;
        assert_eq!(after_failure(0, exhausted, &settings), again);
        for attempts in [5, 99] {
            assert_eq!(
                after_failure(attempts, Cause::Panic, &settings),
                Verdict::Dead(Cause::Panic)
            );
        }
    }

    #[test]
    fn one_attempt_means_no_retry() {
        assert!(delays(&settings(1)).is_empty());
        let verdict = after_failure(0, Cause::RetriesExhausted, &settings(1));
        assert_eq!(verdict, Verdict::Dead(Cause::RetriesExhausted));
    }
}

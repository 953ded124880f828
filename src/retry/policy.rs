//! The one place that says what follows from a kind of failure.
//!
//! `store/error.rs` says what a failure *is*; nothing but this file says what is *done* about it.

use crate::config::retry::RetrySettings;
use crate::event::{Cause, Patience};
use crate::store::ErrorKind;
use std::time::Duration;

/// What to do with rows that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep them, wait, and write them again: nothing is wrong with them. Spends no attempt.
    Pause,
    /// Write them again from here for as long as their callers wait.
    TryAgain,
    /// Tell their callers to come back later.
    Refuse,
    /// Part the good from the bad; a row that fails alone is bad.
    Isolate,
    /// Let each come back after a delay, as often as `retry.max_attempts` allows.
    RetryLater,
}

/// What follows when rows whose sources have this `patience` fail with an error of this `kind`.
pub fn action(kind: ErrorKind, patience: Patience) -> Action {
    match (kind, patience) {
        (ErrorKind::Outage | ErrorKind::Operator, Patience::Queue) => Action::Pause,
        (ErrorKind::Outage | ErrorKind::Operator, Patience::Caller) => Action::Refuse,
        (ErrorKind::Transient, Patience::Queue) => Action::RetryLater,
        (ErrorKind::Transient, Patience::Caller) => Action::TryAgain,
        (ErrorKind::Poison, _) => Action::Isolate,
    }
}

/// Advice for the person who reads the log.
pub fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Outage => "the store is away; work goes on by itself when it is back",
        ErrorKind::Operator => {
            "the store refuses all work until somebody mends it: check schema, rights and disk"
        }
        ErrorKind::Transient => "this usually passes; it is tried again",
        ErrorKind::Poison => "the store will never take this row; it is put aside",
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

/// Decides for an event that failed in a way that may pass, after `attempts` attempts that were
/// counted before this one.
pub fn after_transient(attempts: u32, settings: &RetrySettings) -> Verdict {
    let attempts = attempts.saturating_add(1);
    if attempts >= settings.max_attempts {
        return Verdict::Dead(Cause::RetriesExhausted);
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

/// Every delay that [`after_transient`] can give: each has a retry queue.
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

    fn settings(max_attempts: u32) -> RetrySettings {
        RetrySettings {
            max_attempts,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }

    #[test]
    fn an_outage_spends_no_attempt_and_poison_is_parted_from_the_rest() {
        for patience in [Patience::Caller, Patience::Queue] {
            assert_eq!(action(ErrorKind::Poison, patience), Action::Isolate);
        }
        for kind in [ErrorKind::Outage, ErrorKind::Operator] {
            assert_eq!(action(kind, Patience::Queue), Action::Pause);
            assert_eq!(action(kind, Patience::Caller), Action::Refuse);
        }
        assert_eq!(
            action(ErrorKind::Transient, Patience::Queue),
            Action::RetryLater
        );
    }

    #[test]
    fn delays_grow_to_the_bound_and_end_with_the_attempts() {
        let settings = settings(6);
        let seconds: Vec<u64> = delays(&settings).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 4, 16, 60]);
        assert_eq!(
            after_transient(0, &settings),
            Verdict::Again {
                delay: Duration::from_secs(1),
                attempts: 1
            }
        );
        assert_eq!(
            after_transient(5, &settings),
            Verdict::Dead(Cause::RetriesExhausted)
        );
        assert_eq!(
            after_transient(99, &settings),
            Verdict::Dead(Cause::RetriesExhausted)
        );
    }

    #[test]
    fn one_attempt_means_no_retry() {
        assert!(delays(&settings(1)).is_empty());
        assert_eq!(
            after_transient(0, &settings(1)),
            Verdict::Dead(Cause::RetriesExhausted)
        );
    }
}

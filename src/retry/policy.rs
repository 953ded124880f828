//! What follows a failure. Nothing else in the crate decides that; a test in `lib.rs` keeps it so.
//!
//! `store/error` and `broker/error.rs` classify an error by its [`ErrorKind`] and [`Cause`]. This
//! file derives an [`Action`] from it and from the [`FailureContext`]; the callers carry it out, and
//! the event's ticket is settled with an [`Outcome`](crate::event::Outcome).

use crate::config::retry::RetrySettings;
use crate::event::Cause;
use crate::store::{ErrorKind, StoreError};
use std::time::Duration;

/// How often a dead letter is inserted when that fails for reasons that may pass.
const INSERTS: u32 = 4;
/// First and longest pause between two attempts while a caller waits.
const CALLER_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What is known, besides the error, of rows that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureContext {
    /// It is a single row, so whatever went wrong, it was this one.
    pub alone: bool,
    /// A caller waits for one of them; else a queue keeps them all.
    pub caller_waits: bool,
    /// The batch has taken `ingest.timeout` already.
    pub late: bool,
    /// The store's breaker is closed.
    pub store_up: bool,
    /// The rows keep their order: those behind them wait.
    pub ordered: bool,
    /// Attempts that the single row has spent before.
    pub attempts: u32,
}

/// What to do with rows that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep them until the store is available, then write them again. Spends no attempt.
    Pause,
    /// Write them again after a short pause, since callers wait. Spends no attempt.
    TryAgain,
    /// Tell their callers to repeat them later.
    Refuse,
    /// Write each half by itself.
    Isolate,
    /// Spend an attempt, and write the row again from here after this pause.
    RetryHere(Duration),
    /// Spend an attempt, and send the row through the retry queue of this delay.
    RetryLater(Duration),
    /// Dead-letter the row with the error's [`Cause`].
    DeadLetter,
}

/// Whether the write probe is asked before a failure has consequences: a lock or a changed schema
/// fails every row alike. A panic is the fault of the code, and poison that of the row.
pub fn needs_probe(error: &StoreError) -> bool {
    error.kind() == ErrorKind::Transient && error.cause() != Cause::Panic
}

/// Whether the write probe waited for a lock that has ended since: the rows are then written again
/// before they are charged. The number of such rewrites of a batch is bounded.
pub fn lock_has_ended(probe_took: Duration, rewrites: u32) -> bool {
    const SLOW_PROBE: Duration = Duration::from_millis(200);
    const MAX_REWRITES: u32 = 3;
    probe_took >= SLOW_PROBE && rewrites < MAX_REWRITES
}

/// The failure of rows after which the write probe failed too, with `probe`.
pub fn with_failed_probe(probe: StoreError) -> StoreError {
    let error = match probe.kind() {
        ErrorKind::Operator => probe,
        _ => probe.into_outage(),
    };
    error.context("the write probe failed too")
}

/// Whether a failure counts towards opening the store's breaker.
pub fn opens_breaker(error: &StoreError) -> bool {
    matches!(error.kind(), ErrorKind::Outage | ErrorKind::Operator)
}

/// What follows when rows could not be written with `error`.
pub fn action(error: &StoreError, context: &FailureContext, settings: &RetrySettings) -> Action {
    let (cause, caller_waits) = (error.cause(), context.caller_waits);
    match error.kind() {
        // An outage is not a bad event: no attempt is spent and nothing is dead-lettered.
        ErrorKind::Outage | ErrorKind::Operator if !caller_waits => Action::Pause,
        ErrorKind::Outage | ErrorKind::Operator if context.store_up && !context.late => {
            Action::TryAgain
        }
        ErrorKind::Outage | ErrorKind::Operator => Action::Refuse,
        ErrorKind::Transient
            if caller_waits && context.late && cause == Cause::RetriesExhausted =>
        {
            Action::Refuse
        }
        // Whatever else it was, only a row that fails alone answers for it.
        _ if !context.alone => Action::Isolate,
        ErrorKind::Poison => Action::DeadLetter,
        // The write has taken longer than the caller waits.
        ErrorKind::Transient if caller_waits && cause == Cause::Timeout => Action::Refuse,
        ErrorKind::Transient => after_attempt(cause, context, settings),
    }
}

/// What follows when a single row has spent one more attempt.
fn after_attempt(cause: Cause, context: &FailureContext, settings: &RetrySettings) -> Action {
    let attempts = context.attempts.saturating_add(1);
    let exhausted = attempts >= settings.max_attempts;
    match (context.ordered, context.caller_waits) {
        // It may succeed later, but not while other callers wait for this writer.
        (false, true) if exhausted && cause == Cause::RetriesExhausted => Action::Refuse,
        _ if exhausted => Action::DeadLetter,
        (true, _) => Action::RetryHere(delay(attempts, settings)),
        (false, false) => Action::RetryLater(delay(attempts, settings)),
        (false, true) => {
            let (first, longest) = CALLER_DELAY;
            let factor = 1u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
            Action::RetryHere(first.saturating_mul(factor).min(longest))
        }
    }
}

/// Advice for the reader of the log.
pub fn advice(error: &StoreError) -> &'static str {
    match (error.cause(), error.kind()) {
        (Cause::Panic, _) => "a defect in Eclusa; please report it with the panic logged above",
        (Cause::Timeout, _) => "the store can be written but did not finish this; look for locks",
        (_, ErrorKind::Outage) => "the store cannot be written; work resumes when it can",
        (_, ErrorKind::Operator) => {
            "the store refuses all work until an operator acts: check schema, rights and disk"
        }
        (_, ErrorKind::Transient) => "this usually passes; the write is repeated",
        (_, ErrorKind::Poison) => "the store never accepts this row; it is dead-lettered",
    }
}

/// Whether a dead letter whose insert has failed `tries` times is inserted once more.
pub fn inserts_again(error: &StoreError, tries: u32) -> bool {
    error.kind() == ErrorKind::Transient && tries < INSERTS
}

/// Whether a dead letter can never be inserted.
pub fn is_refused(error: &StoreError) -> bool {
    error.kind() == ErrorKind::Poison
}

/// The pause after so many attempts: `base_delay`, then four times as long each, up to `max_delay`.
fn delay(attempts: u32, settings: &RetrySettings) -> Duration {
    let factor = 4u32
        .checked_pow(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    settings
        .base_delay
        .saturating_mul(factor)
        .min(settings.max_delay)
}

/// Every delay of [`Action::RetryLater`]: each has a retry queue.
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

    const ALONE: FailureContext = FailureContext {
        alone: true,
        caller_waits: false,
        late: false,
        store_up: true,
        ordered: false,
        attempts: 0,
    };
    const CALLER: FailureContext = FailureContext {
        caller_waits: true,
        ..ALONE
    };
    const ORDERED: FailureContext = FailureContext {
        ordered: true,
        ..ALONE
    };

    fn settings(max_attempts: u32) -> RetrySettings {
        RetrySettings {
            max_attempts,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }

    fn error(kind: ErrorKind) -> StoreError {
        StoreError::new(kind, "test")
    }

    fn timeout() -> StoreError {
        StoreError::transient(Cause::Timeout, "test")
    }

    fn panic() -> StoreError {
        StoreError::transient(Cause::Panic, "test")
    }

    fn follows(error: &StoreError, context: FailureContext) -> Action {
        action(error, &context, &settings(5))
    }

    #[test]
    fn an_outage_spends_no_attempt_whatever_the_context() {
        for kind in [ErrorKind::Outage, ErrorKind::Operator] {
            let error = error(kind);
            assert!(opens_breaker(&error) && !needs_probe(&error));
            for (alone, attempts) in [(true, 99), (false, 0)] {
                let of = |context| FailureContext {
                    alone,
                    attempts,
                    ..context
                };
                assert_eq!(follows(&error, of(ALONE)), Action::Pause);
                assert_eq!(follows(&error, of(ORDERED)), Action::Pause);
                assert_eq!(follows(&error, of(CALLER)), Action::TryAgain);
                let late = FailureContext {
                    late: true,
                    ..of(CALLER)
                };
                assert_eq!(follows(&error, late), Action::Refuse);
                let open = FailureContext {
                    store_up: false,
                    ..of(CALLER)
                };
                assert_eq!(follows(&error, open), Action::Refuse);
            }
        }
    }

    #[test]
    fn what_fails_the_write_probe_too_is_an_outage() {
        for rows in [error(ErrorKind::Transient), timeout()] {
            assert!(needs_probe(&rows));
        }
        assert!(!needs_probe(&error(ErrorKind::Poison)));
        assert!(!needs_probe(&panic()));
        for (probe, kind) in [
            (timeout(), ErrorKind::Outage),
            (error(ErrorKind::Transient), ErrorKind::Outage),
            (error(ErrorKind::Operator), ErrorKind::Operator),
        ] {
            let error = with_failed_probe(probe);
            assert_eq!((error.kind(), error.label()), (kind, kind.as_str()));
        }
    }

    #[test]
    fn only_a_row_that_fails_alone_answers_for_it() {
        let second = Duration::from_secs(1);
        for (error, alone) in [
            (error(ErrorKind::Poison), Action::DeadLetter),
            (error(ErrorKind::Transient), Action::RetryLater(second)),
            (panic(), Action::RetryLater(second)),
            (timeout(), Action::RetryLater(second)),
        ] {
            assert_eq!(follows(&error, ALONE), alone);
            for context in [ALONE, CALLER, ORDERED] {
                let among_others = FailureContext {
                    alone: false,
                    ..context
                };
                assert_eq!(follows(&error, among_others), Action::Isolate);
            }
        }
    }

    #[test]
    fn in_order_a_row_is_retried_where_it_is() {
        let second = Duration::from_secs(1);
        for error in [error(ErrorKind::Transient), panic(), timeout()] {
            assert_eq!(follows(&error, ORDERED), Action::RetryHere(second));
        }
        assert_eq!(
            follows(&error(ErrorKind::Poison), ORDERED),
            Action::DeadLetter
        );
    }

    #[test]
    fn a_caller_is_told_to_repeat_what_may_succeed_later() {
        let transient = error(ErrorKind::Transient);
        let last = FailureContext {
            attempts: 4,
            ..CALLER
        };
        let late = FailureContext {
            late: true,
            ..CALLER
        };
        let short = Action::RetryHere(CALLER_DELAY.0);
        assert_eq!(follows(&transient, CALLER), short);
        assert_eq!(follows(&transient, last), Action::Refuse);
        assert_eq!(follows(&transient, late), Action::Refuse);
        assert_eq!(follows(&timeout(), CALLER), Action::Refuse);
        assert_eq!(follows(&panic(), late), short);
        assert_eq!(follows(&panic(), last), Action::DeadLetter);
    }

    #[test]
    fn delays_grow_to_the_bound_and_end_with_the_attempts() {
        let settings = settings(6);
        let seconds: Vec<u64> = delays(&settings).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 4, 16, 60]);
        for attempts in [5, 99] {
            let last = FailureContext { attempts, ..ALONE };
            let dead = action(&panic(), &last, &settings);
            assert_eq!(dead, Action::DeadLetter);
        }
    }

    #[test]
    fn one_attempt_means_no_retry() {
        let once = settings(1);
        assert!(delays(&once).is_empty());
        let dead = action(&error(ErrorKind::Transient), &ALONE, &once);
        assert_eq!(dead, Action::DeadLetter);
    }
}

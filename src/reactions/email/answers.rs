//! What the answers of an SMTP server mean for a run.

use crate::reactions::HandlerError;
use lettre::transport::smtp::Error;
use std::error::Error as _;

/// Longest quotation of a server, in characters.
const MAX_WORDS: usize = 300;

/// Refusals that are permanent by their first digit and yet not about the e-mail: a command out of order
/// (503), authentication or encryption missing or wrong (530, 534, 535, 538). The settings are changed,
/// and the run then succeeds.
const NOT_ABOUT_THE_EMAIL: [u16; 5] = [503, 530, 534, 535, 538];

/// Whether the server refuses for good what it was asked.
pub(super) fn is_refusal(error: &Error) -> bool {
    error
        .status()
        .is_some_and(|code| error.is_permanent() && !NOT_ABOUT_THE_EMAIL.contains(&u16::from(code)))
}

/// What follows from an error of `server` in answer to `command`.
pub(super) fn outcome(
    error: &Error,
    server: &str,
    command: &str,
    hidden: &[String],
) -> HandlerError {
    let words = words(error, hidden);
    if is_refusal(error) {
        return HandlerError::Discard(format!("{server} refuses the e-mail at {command}: {words}"));
    }
    HandlerError::Failed(match error.status() {
        Some(_) => format!("{server} does not take the e-mail now, at {command}: {words}"),
        None => format!("{server} is lost at {command}: {words}"),
    })
}

/// An error in the server's words: one line without what is `hidden`.
pub(super) fn words(error: &Error, hidden: &[String]) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let mut words = match error.status() {
        Some(code) => format!("{code} {cause}"),
        None if cause.is_empty() => error.to_string(),
        None => cause,
    };
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        words = words.replace(secret.as_str(), "***");
    }
    let line = words.replace(char::is_control, " ");
    line.trim().chars().take(MAX_WORDS).collect()
}

//! How far a chunk is confirmed.

use crate::broker::error::kind_of;
use crate::followers::SendError;
use crate::store::ErrorKind;
use lapin::Confirmation;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

/// The outcome of publishing events.
pub(super) struct Published {
    /// How many are confirmed, from the first one on.
    pub(super) confirmed: usize,
    /// What kept the one behind them from being confirmed, if there is one.
    pub(super) failure: Option<Failure>,
}

/// Why an event is not confirmed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Known(SendError),
    /// The server refuses the content of one of several events that were under way.
    OneOfSeveral,
}

/// What is confirmed of a chunk while it is published. Answers come in any order.
#[derive(Default)]
pub(super) struct Progress {
    /// Of each event that was sent, whether it is confirmed.
    sent: Vec<bool>,
    unconfirmed: usize,
    /// The first event that failed, and why.
    failure: Option<(usize, Failure)>,
}

impl Progress {
    /// How many were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The next event is sent.
    pub(super) fn send(&mut self) {
        self.sent.push(false);
        self.unconfirmed += 1;
    }

    /// The next event cannot be sent.
    pub(super) fn cannot_send(&mut self, error: SendError) {
        self.failed(self.sent.len(), Failure::Known(error));
    }

    /// None of those that are not confirmed will be.
    pub(super) fn give_up(&mut self, error: SendError) {
        if let Some(first) = self.sent.iter().position(|confirmed| !confirmed) {
            self.failed(first, Failure::Known(error));
        }
    }

    /// No queue gets a message. It may be another one than the one with whose confirm that came, and it
    /// is not confirmed, whatever its own confirm says.
    pub(super) fn returned(&mut self, index: usize, error: SendError) {
        self.failed(index, Failure::Known(error));
    }

    /// Takes the answer to a message. What it says of a returned message is for [`Progress::returned`].
    pub(super) fn answered(
        &mut self,
        index: usize,
        answer: &lapin::Result<Confirmation>,
        server: &str,
    ) {
        let failure = match answer {
            Ok(Confirmation::Ack(_)) => {
                if let Some(confirmed) = self.sent.get_mut(index) {
                    *confirmed = true;
                    self.unconfirmed = self.unconfirmed.saturating_sub(1);
                }
                return;
            }
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                let reason =
                    format!("{server} has not taken the message; a queue is full, or has failed");
                Failure::Known(SendError::Unavailable(reason))
            }
            Err(error) if is_refusal(error) && self.unconfirmed > 1 => Failure::OneOfSeveral,
            Err(error) => Failure::Known(send_error(error, server)),
        };
        self.failed(index, failure);
    }

    fn failed(&mut self, index: usize, failure: Failure) {
        if self
            .failure
            .as_ref()
            .is_none_or(|(first, _)| index < *first)
        {
            self.failure = Some((index, failure));
        }
    }

    pub(super) fn end(self) -> Published {
        let unconfirmed = self.sent.iter().position(|confirmed| !confirmed);
        let confirmed = unconfirmed.unwrap_or(self.sent.len());
        match self.failure {
            Some((first, failure)) => Published {
                confirmed: confirmed.min(first),
                failure: Some(failure),
            },
            None => Published {
                confirmed,
                failure: None,
            },
        }
    }
}

/// Whether the server has closed the channel over a message: one that is larger than it takes, above all.
fn is_refusal(error: &lapin::Error) -> bool {
    let lapin::ErrorKind::ProtocolError(reply) = error.kind() else {
        return false;
    };
    let refusals = [
        AMQPSoftError::CONTENTTOOLARGE,
        AMQPSoftError::PRECONDITIONFAILED,
    ];
    refusals
        .into_iter()
        .any(|refusal| *reply.kind() == AMQPErrorKind::Soft(refusal))
}

/// What follows from an error of a connection or of a channel that publishes.
pub(super) fn send_error(error: &lapin::Error, server: &str) -> SendError {
    if is_refusal(error) {
        return SendError::Refused(format!("{server} refuses the message: {error}"));
    }
    opening_error(error, server)
}

/// What follows from an error before anything is published.
pub(super) fn opening_error(error: &lapin::Error, server: &str) -> SendError {
    let reason = format!("cannot publish to {server}: {error}");
    match kind_of(error) {
        ErrorKind::Operator => SendError::Operator(reason),
        _ => SendError::Unavailable(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::AMQPError;

    fn closed(error: AMQPSoftError) -> lapin::Result<Confirmation> {
        let reply = AMQPError::new(error.into(), "as it says".into());
        Err(lapin::ErrorKind::ProtocolError(reply).into())
    }

    fn of(events: usize) -> Progress {
        let mut progress = Progress::default();
        (0..events).for_each(|_| progress.send());
        progress
    }

    const ACK: lapin::Result<Confirmation> = Ok(Confirmation::Ack(None));

    #[test]
    fn what_is_confirmed_ends_before_the_first_that_is_not() {
        let mut progress = of(4);
        for index in [0, 3, 1] {
            progress.answered(index, &ACK, "it");
        }
        assert_eq!(progress.end().confirmed, 2);
        let mut progress = of(3);
        // The answers of those behind it come first.
        progress.answered(2, &ACK, "it");
        progress.answered(1, &Ok(Confirmation::Nack(None)), "it");
        progress.answered(0, &ACK, "it");
        let Published { confirmed, failure } = progress.end();
        assert_eq!(confirmed, 1);
        let waits = matches!(failure, Some(Failure::Known(SendError::Unavailable(_))));
        assert!(waits, "{failure:?}");
        let mut progress = of(3);
        (0..3).for_each(|index| progress.answered(index, &ACK, "it"));
        // It was acknowledged, as each message is that no queue gets.
        progress.returned(1, SendError::Operator("bind one".to_owned()));
        let Published { confirmed, failure } = progress.end();
        assert_eq!(confirmed, 1);
        let waits = matches!(failure, Some(Failure::Known(SendError::Operator(_))));
        assert!(waits, "{failure:?}");
    }

    #[test]
    fn a_refusal_is_that_of_one_event_only_when_it_is_alone() {
        let too_large = || closed(AMQPSoftError::PRECONDITIONFAILED);
        let mut progress = of(3);
        progress.answered(0, &ACK, "it");
        progress.answered(2, &too_large(), "it");
        progress.answered(1, &too_large(), "it");
        let Published { confirmed, failure } = progress.end();
        assert!(
            matches!(failure, Some(Failure::OneOfSeveral)),
            "{failure:?}"
        );
        assert_eq!(confirmed, 1);
        let mut progress = of(2);
        progress.answered(0, &ACK, "it");
        progress.answered(1, &too_large(), "it");
        match progress.end().failure {
            Some(Failure::Known(SendError::Refused(reason))) => {
                assert!(reason.contains("as it says"))
            }
            other => panic!("{other:?}"),
        }
        let mut progress = of(2);
        for index in 0..2 {
            progress.answered(index, &closed(AMQPSoftError::NOTFOUND), "it");
        }
        let Published { confirmed, failure } = progress.end();
        let waits = matches!(failure, Some(Failure::Known(SendError::Operator(_))));
        assert!(waits, "{failure:?}");
        assert_eq!(confirmed, 0);
    }
}

//! What can go wrong with the broker, sorted into the same kinds as the store's failures.

use super::publisher::PublishError;
use crate::store::ErrorKind;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Sorts lapin's errors: by the broker's reply code where there is one.
pub fn kind_of(error: &lapin::Error) -> ErrorKind {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(reply) => kind_of_reply(reply),
        lapin::ErrorKind::AuthProviderError(_) | lapin::ErrorKind::InvalidProtocolVersion(_) => {
            ErrorKind::Operator
        }
        lapin::ErrorKind::ParsingError(_) | lapin::ErrorKind::SerialisationError(_) => {
            ErrorKind::Transient
        }
        // I/O, heartbeats, channels and connections that are no longer there.
        _ => ErrorKind::Outage,
    }
}

/// Sorts the broker's reply codes (AMQP 0-9-1, section 1.2, and RabbitMQ's use of them).
pub fn kind_of_reply(reply: &AMQPError) -> ErrorKind {
    match reply.kind() {
        AMQPErrorKind::Soft(soft) => match soft {
            AMQPSoftError::CONTENTTOOLARGE => ErrorKind::Poison,
            // Not found, no rights, other arguments, locked, no route or consumer.
            _ => ErrorKind::Operator,
        },
        AMQPErrorKind::Hard(hard) => match hard {
            AMQPHardError::CONNECTIONFORCED => ErrorKind::Outage,
            AMQPHardError::INVALIDPATH
            | AMQPHardError::NOTALLOWED
            | AMQPHardError::NOTIMPLEMENTED => ErrorKind::Operator,
            // Resource and internal errors: a queue without a leader says so for a while.
            _ => ErrorKind::Transient,
        },
    }
}

/// Sorts what publishing can end in.
pub fn kind_of_publish(error: &PublishError) -> ErrorKind {
    match error {
        PublishError::Down | PublishError::Blocked | PublishError::TimedOut(_) => ErrorKind::Outage,
        PublishError::Unroutable(_) => ErrorKind::Operator,
        PublishError::Nacked => ErrorKind::Transient,
        PublishError::Encoding(_) => ErrorKind::Poison,
        PublishError::Broker(error) => kind_of(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn every_class_of_reply_has_its_kind() {
        let soft = |error: AMQPSoftError| kind_of_reply(&AMQPError::new(error.into(), "".into()));
        let hard = |error: AMQPHardError| kind_of_reply(&AMQPError::new(error.into(), "".into()));
        for error in [
            AMQPSoftError::NOTFOUND,
            AMQPSoftError::ACCESSREFUSED,
            AMQPSoftError::PRECONDITIONFAILED,
            AMQPSoftError::RESOURCELOCKED,
        ] {
            assert_eq!(soft(error), ErrorKind::Operator);
        }
        assert_eq!(soft(AMQPSoftError::CONTENTTOOLARGE), ErrorKind::Poison);
        assert_eq!(hard(AMQPHardError::CONNECTIONFORCED), ErrorKind::Outage);
        assert_eq!(hard(AMQPHardError::NOTALLOWED), ErrorKind::Operator);
        assert_eq!(hard(AMQPHardError::INTERNALERROR), ErrorKind::Transient);
    }

    #[test]
    fn failures_of_the_way_there_are_outages() {
        let reset = lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(kind_of(&reset), ErrorKind::Outage);
        assert_eq!(
            kind_of_publish(&PublishError::Broker(reset)),
            ErrorKind::Outage
        );
        assert_eq!(kind_of_publish(&PublishError::Blocked), ErrorKind::Outage);
        assert_eq!(kind_of_publish(&PublishError::Nacked), ErrorKind::Transient);
        let unroutable = PublishError::Unroutable("q".to_owned());
        assert_eq!(kind_of_publish(&unroutable), ErrorKind::Operator);
    }
}

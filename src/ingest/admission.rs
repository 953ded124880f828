//! `AdmissionControl`: whether events can be made durable now.

use crate::broker::Publisher;
use crate::retry::breaker::Breaker;
use std::time::Duration;

/// The broker and the store, and their breakers.
#[derive(Clone)]
pub struct AdmissionControl {
    pub store: Breaker,
    /// The broker's breaker and the publisher, in full mode.
    pub broker: Option<(Breaker, Publisher)>,
    /// Whether events are refused while the broker is away, instead of written to the store.
    pub refuses: bool,
}

impl AdmissionControl {
    /// Whether the broker takes messages now; `None` without a broker.
    pub fn broker_is_up(&self) -> Option<bool> {
        self.broker
            .as_ref()
            .map(|(breaker, publisher)| breaker.is_closed() && publisher.is_available())
    }

    /// Why the broker takes no messages now.
    pub fn broker_detail(&self) -> String {
        let waiting = self
            .broker
            .as_ref()
            .and_then(|(_, publisher)| publisher.waits_for());
        waiting.unwrap_or_else(|| "not connected, or taking no messages".to_owned())
    }

    /// Whether the store has to be there for an event to be taken.
    pub fn needs_store(&self) -> bool {
        self.broker_is_up() != Some(true) && self.store_may_be_used()
    }

    /// Whether events may be written to the store while the broker is away. Not while other replicas are
    /// in the way: an event would overtake those in their queues.
    pub fn store_may_be_used(&self) -> bool {
        let Some((_, publisher)) = &self.broker else {
            return true;
        };
        !self.refuses && publisher.waits_for().is_none()
    }

    /// Refuses at once what could only wait for a server that is away.
    ///
    /// # Errors
    /// Which servers are away, and the time until the next probe.
    pub fn check(&self) -> Result<(), ServersAway> {
        if self.broker_is_up() == Some(true) || (self.store_may_be_used() && self.store.is_closed())
        {
            return Ok(());
        }
        let (reason, retry_after) = match &self.broker {
            None => ("the store is away".to_owned(), self.store.retry_after()),
            Some((breaker, publisher)) if !self.store_may_be_used() => {
                let waiting = publisher.waits_for();
                let reason = waiting.unwrap_or_else(|| "the broker is away".to_owned());
                (reason, breaker.retry_after())
            }
            Some((breaker, _)) => (
                "the broker and the store are away".to_owned(),
                breaker.retry_after().min(self.store.retry_after()),
            ),
        };
        Err(ServersAway {
            reason,
            retry_after,
        })
    }
}

/// No event can be made durable now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct ServersAway {
    reason: String,
    /// The time until the next probe.
    pub retry_after: Duration,
}

//! Whether events can be made durable now, known before any of them is taken.

use super::problem::Problem;
use crate::broker::Publisher;
use crate::supervision::Breaker;

/// The ways to durability and their breakers.
#[derive(Clone)]
pub struct Doors {
    /// The store's breaker.
    pub store: Breaker,
    /// The broker's breaker and the way there, in full mode.
    pub broker: Option<(Breaker, Publisher)>,
    /// Whether events are refused while the broker is away, and the store does not stand in for it.
    pub refuses: bool,
}

impl Doors {
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

    fn store_may_be_used(&self) -> bool {
        self.broker.is_none() || !self.refuses
    }

    /// Refuses at once what would only wait for something that is away.
    ///
    /// # Errors
    /// 503 with the time of the next probe as `Retry-After`.
    pub fn check(&self) -> Result<(), Problem> {
        if self.broker_is_up() == Some(true) || (self.store_may_be_used() && self.store.is_closed())
        {
            return Ok(());
        }
        let (what, pause) = match &self.broker {
            None => ("the store is away", self.store.retry_after()),
            Some((breaker, _)) if !self.store_may_be_used() => {
                ("the broker is away", breaker.retry_after())
            }
            Some((breaker, _)) => (
                "the broker and the store are away",
                breaker.retry_after().min(self.store.retry_after()),
            ),
        };
        Err(Problem::unavailable(format!("{what}; repeat the request with these ids")).after(pause))
    }
}

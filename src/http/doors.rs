//! Whether events can be made durable now, known before any of them is taken.

use super::problem::Problem;
use crate::broker::Publisher;
use crate::config::broker::Fallback;
use crate::supervision::Breaker;

/// The ways to durability and their breakers.
#[derive(Clone)]
pub struct Doors {
    /// The store's breaker.
    pub store: Breaker,
    /// The broker's breaker and the way there, in full mode.
    pub broker: Option<(Breaker, Publisher)>,
    /// Whether the store stands in for the broker.
    pub fallback: Fallback,
}

impl Doors {
    /// Whether the broker takes messages now; `None` without a broker.
    pub fn broker_is_up(&self) -> Option<bool> {
        self.broker
            .as_ref()
            .map(|(breaker, publisher)| breaker.is_closed() && publisher.is_available())
    }

    /// Whether the store has to be there for an event to be taken.
    pub fn needs_store(&self) -> bool {
        self.broker_is_up() != Some(true) && self.store_may_be_used()
    }

    fn store_may_be_used(&self) -> bool {
        self.broker.is_none() || self.fallback == Fallback::Store
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

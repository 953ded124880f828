//! The topics of a process, and their actors.

use super::counts::{TypeCounter, TypeListing};
use super::roll::Roll;
use super::roll_watch::RollWatch;
use super::shared::Shared;
use super::tail::Tail;
use super::tail_reader::TailReader;
use crate::config::LiveSettings;
use crate::event::budget::Budget;
use crate::followers::LogWatch;
use crate::store::{Store, StoreError};
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The part of the bytes under way that the newest events may take.
const TAIL_PART: usize = 8;

/// The topics of a process; clones are the same.
#[derive(Clone)]
pub struct Topics {
    pub(super) shared: Arc<Shared>,
}

/// The actors, until dropped.
#[derive(Clone)]
pub struct TopicActors {
    // Kept because an actor without an address is not restarted.
    _reader: Mailbox<TailReader>,
    _watch: Mailbox<RollWatch>,
}

impl Topics {
    /// Starts the actors, on a thread of their own.
    pub fn start(
        settings: &LiveSettings,
        store: &Arc<dyn Store>,
        log: &LogWatch,
        starter: &Starter,
    ) -> (Self, TopicActors) {
        let (bytes, readers) = {
            let settings = settings.get();
            let topics = &settings.topics;
            (topics.bytes_in_flight(), topics.readers)
        };
        let budget = Budget::new(bytes);
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            settings: settings.clone(),
            log: log.clone(),
            tail: Arc::new(Tail::new(budget.clone(), bytes / TAIL_PART)),
            roll: Arc::new(Roll::new(Arc::clone(&starter.metrics))),
            counter: TypeCounter::default(),
            turns: Semaphore::new(readers),
            budget,
            lifecycle: starter.lifecycle.clone(),
            metrics: Arc::clone(&starter.metrics),
        });
        let arbiter = Arbiter::new();
        let (reader, inbox) = starter.mailbox("tail_reader", 0, 1);
        starter.start(&arbiter, inbox, TailReader::new(Arc::clone(&shared)));
        let (watch, inbox) = starter.mailbox("roll_watch", 0, 1);
        starter.start(&arbiter, inbox, RollWatch::new(Arc::clone(&shared)));
        let actors = TopicActors {
            _reader: reader,
            _watch: watch,
        };
        (Self { shared }, actors)
    }

    /// The event types behind a name, at most `limit`; `None` while another request counts for long.
    ///
    /// # Errors
    /// The store's.
    pub async fn types(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<TypeListing>, StoreError> {
        let shared = &self.shared;
        let counter = &shared.counter;
        counter
            .types(&*shared.store, &shared.turns, after, limit)
            .await
    }

    /// Bytes under way to subscribers.
    pub fn bytes_under_way(&self) -> usize {
        self.shared.budget.used()
    }
}

//! Starting actors, each on an arbiter, all under the same supervision.

use super::mailbox::{Inbox, Mailbox, mailbox};
use super::{HealthBoard, Lifecycle, RestartPolicy, supervise};
use crate::metrics::Metrics;
use actix::{Actor, Context, Supervised};
use actix_rt::Arbiter;
use std::sync::Arc;

/// What every actor of a process is started with.
#[derive(Clone)]
pub struct Starter {
    pub metrics: Arc<Metrics>,
    pub health: HealthBoard,
    pub lifecycle: Lifecycle,
}

impl Starter {
    /// A starter for a process with these metrics, which runs.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            health: HealthBoard::default(),
            lifecycle: Lifecycle::default(),
        }
    }

    /// As [`mailbox`].
    pub fn mailbox<A: Actor<Context = Context<A>>>(
        &self,
        name: &'static str,
        index: usize,
        capacity: usize,
    ) -> (Mailbox<A>, Inbox<A>) {
        mailbox(name, index, capacity, &self.metrics, &self.health)
    }

    /// Starts an actor under the supervisor, on the arbiter's thread.
    pub fn start<A>(&self, arbiter: &Arbiter, inbox: Inbox<A>, actor: A)
    where
        A: Actor<Context = Context<A>> + Supervised + Unpin + Send,
    {
        let (metrics, lifecycle) = (Arc::clone(&self.metrics), self.lifecycle.clone());
        arbiter.spawn_fn(move || {
            supervise(inbox, actor, RestartPolicy::default(), &metrics, &lifecycle);
        });
    }
}

//! Starting actors, each on an arbiter, all under the same supervision.

use crate::metrics::Metrics;
use crate::retry::breaker;
use crate::retry::breaker::{Breaker, BreakerProbe};
use crate::supervision::mailbox::{Inbox, Mailbox, mailbox};
use crate::supervision::{HealthBoard, Lifecycle, RestartPolicy, supervise};
use actix::{Actor, Context, Supervised};
use actix_rt::Arbiter;
use std::sync::Arc;

pub(super) struct Starter {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: HealthBoard,
    pub(super) lifecycle: Lifecycle,
}

impl Starter {
    pub(super) fn mailbox<A: Actor<Context = Context<A>>>(
        &self,
        name: &'static str,
        index: usize,
        capacity: usize,
    ) -> (Mailbox<A>, Inbox<A>) {
        mailbox(name, index, capacity, &self.metrics, &self.health)
    }

    pub(super) fn probe(
        &self,
        arbiter: &Arbiter,
        breaker: &Breaker,
        probe: Arc<breaker::Probe>,
    ) -> Mailbox<BreakerProbe> {
        let (mailbox, inbox) = self.mailbox("breaker_probe", 0, 1);
        self.start(arbiter, inbox, BreakerProbe::new(breaker.clone(), probe));
        mailbox
    }

    pub(super) fn start<A>(&self, arbiter: &Arbiter, inbox: Inbox<A>, actor: A)
    where
        A: Actor<Context = Context<A>> + Supervised + Unpin + Send,
    {
        let (metrics, lifecycle) = (Arc::clone(&self.metrics), self.lifecycle.clone());
        arbiter.spawn_fn(move || {
            supervise(inbox, actor, RestartPolicy::default(), &metrics, &lifecycle);
        });
    }
}

//! Who takes messages from the broker: without an order channels that share the work queue, with an
//! order a consumer for each shard and one that sorts onto them.

use super::starter::Starter;
use crate::actors::intake::Intake;
use crate::actors::share::Share;
use crate::actors::{
    AmqpConsumer, Lanes, Resharder, ShardConsumer, amqp_consumer, resharder, shard_consumer,
};
use crate::broker::{LinkWatch, Publisher};
use crate::supervision::{Breaker, Mailbox};
use actix_rt::Arbiter;
use std::sync::Arc;

/// The consumers of the process. Nobody sends to them, but an actor that nobody can reach is not
/// restarted.
#[derive(Clone, Default)]
pub(super) struct Consumers {
    _channels: Vec<Mailbox<AmqpConsumer>>,
    _shards: Vec<Mailbox<ShardConsumer>>,
    _resharder: Option<Mailbox<Resharder>>,
}

/// What they are wired to.
pub(super) struct Wiring<'a> {
    pub(super) starter: &'a Starter,
    pub(super) arbiter: &'a Arbiter,
    pub(super) link: &'a LinkWatch,
    pub(super) publisher: &'a Publisher,
    pub(super) intake: Intake,
    pub(super) lanes: &'a Lanes,
    pub(super) store_breaker: &'a Breaker,
}

impl Wiring<'_> {
    pub(super) fn start(&self) -> Consumers {
        if self.publisher.shards().is_some() {
            self.start_ordered()
        } else {
            self.start_channels()
        }
    }

    fn start_channels(&self) -> Consumers {
        let channels = self.intake.settings.get().broker.channels;
        let start = |index| {
            let (mailbox, inbox) = self.starter.mailbox("amqp_consumer", index, 1);
            let wiring = amqp_consumer::Wiring {
                index,
                link: self.link.clone(),
                intake: self.intake.clone(),
                accumulator: self.lanes.any().clone(),
                store_breaker: self.store_breaker.clone(),
                lifecycle: self.starter.lifecycle.clone(),
            };
            let actor = AmqpConsumer::new(wiring);
            self.starter.start(self.arbiter, inbox, actor);
            mailbox
        };
        Consumers {
            _channels: (0..channels).map(start).collect(),
            ..Consumers::default()
        }
    }

    fn start_ordered(&self) -> Consumers {
        let share = Share::new(Arc::clone(&self.starter.metrics));
        let start = |(shard, lane): (usize, &Mailbox<_>)| {
            let (mailbox, inbox) = self.starter.mailbox("shard_consumer", shard, 1);
            let wiring = shard_consumer::Wiring {
                shard,
                link: self.link.clone(),
                intake: self.intake.clone(),
                lane: lane.clone(),
                share: share.clone(),
                store_breaker: self.store_breaker.clone(),
                lifecycle: self.starter.lifecycle.clone(),
            };
            let actor = ShardConsumer::new(wiring);
            self.starter.start(self.arbiter, inbox, actor);
            mailbox
        };
        let shards = self.lanes.all().enumerate().map(start).collect();
        let (resharder, inbox) = self.starter.mailbox("resharder", 0, 1);
        let wiring = resharder::Wiring {
            link: self.link.clone(),
            publisher: self.publisher.clone(),
            bounds: self.publisher.bounds(),
            intake: self.intake.clone(),
            lifecycle: self.starter.lifecycle.clone(),
        };
        let actor = Resharder::new(wiring);
        self.starter.start(self.arbiter, inbox, actor);
        Consumers {
            _shards: shards,
            _resharder: Some(resharder),
            ..Consumers::default()
        }
    }
}

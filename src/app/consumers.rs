//! Starting the consumers: without an order channels that share the work queue, with an order one
//! consumer for each shard and the resharder.

use crate::batch::batch_accumulator::BatchAccumulator;
use crate::batch::writer_partitions::WriterPartitions;
use crate::broker::{LinkWatch, Publisher};
use crate::consume::amqp_consumer;
use crate::consume::amqp_consumer::AmqpConsumer;
use crate::consume::message_decoder::MessageDecoder;
use crate::ordering::resharder::Resharder;
use crate::ordering::shard_balancer::ShardBalancer;
use crate::ordering::shard_consumer::ShardConsumer;
use crate::ordering::{resharder, shard_consumer};
use crate::retry::breaker::Breaker;
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use std::sync::Arc;

/// The consumers of the process. They get no messages, but an actor without an address is not
/// restarted.
#[derive(Clone, Default)]
pub(super) struct Consumers {
    _channels: Vec<Mailbox<AmqpConsumer>>,
    _shards: Vec<Mailbox<ShardConsumer>>,
    _resharder: Option<Mailbox<Resharder>>,
}

/// What they are wired to.
pub(super) struct ConsumersParams<'a> {
    pub(super) starter: &'a Starter,
    pub(super) arbiter: &'a Arbiter,
    pub(super) link: &'a LinkWatch,
    pub(super) publisher: &'a Publisher,
    pub(super) decoder: MessageDecoder,
    pub(super) partitions: &'a WriterPartitions,
    pub(super) store_breaker: &'a Breaker,
}

impl ConsumersParams<'_> {
    pub(super) fn start(&self) -> Consumers {
        if self.publisher.shards().is_some() {
            self.start_ordered()
        } else {
            self.start_channels()
        }
    }

    fn start_channels(&self) -> Consumers {
        let channels = self.decoder.settings.get().broker.channels;
        let share = ShardBalancer::new(Arc::clone(&self.starter.metrics));
        let start = |index| {
            let (mailbox, inbox) = self.starter.mailbox("amqp_consumer", index, 1);
            let params = amqp_consumer::AmqpConsumerParams {
                index,
                link: self.link.clone(),
                decoder: self.decoder.clone(),
                accumulator: self.partitions.any().clone(),
                store_breaker: self.store_breaker.clone(),
                lifecycle: self.starter.lifecycle.clone(),
            };
            let actor = AmqpConsumer::new(params);
            self.starter.start(self.arbiter, inbox, actor);
            mailbox
        };
        Consumers {
            _channels: (0..channels).map(start).collect(),
            // For shards that are left over from an order.
            _shards: vec![self.start_shard(0, 1, self.partitions.any(), &share)],
            ..Consumers::default()
        }
    }

    fn start_shard(
        &self,
        shard: usize,
        consumers: usize,
        lane: &Mailbox<BatchAccumulator>,
        share: &ShardBalancer,
    ) -> Mailbox<ShardConsumer> {
        let (mailbox, inbox) = self.starter.mailbox("shard_consumer", shard, 1);
        let params = shard_consumer::ShardConsumerParams {
            shard,
            consumers,
            link: self.link.clone(),
            decoder: self.decoder.clone(),
            lane: lane.clone(),
            share: share.clone(),
            store_breaker: self.store_breaker.clone(),
            lifecycle: self.starter.lifecycle.clone(),
        };
        let actor = ShardConsumer::new(params);
        self.starter.start(self.arbiter, inbox, actor);
        mailbox
    }

    fn start_ordered(&self) -> Consumers {
        let share = ShardBalancer::new(Arc::clone(&self.starter.metrics));
        let lanes: Vec<_> = self.partitions.shards().collect();
        let shards = lanes
            .iter()
            .enumerate()
            .map(|(shard, lane)| self.start_shard(shard, lanes.len(), lane, &share))
            .collect();
        let (resharder, inbox) = self.starter.mailbox("resharder", 0, 1);
        let params = resharder::ResharderParams {
            link: self.link.clone(),
            publisher: self.publisher.clone(),
            decoder: self.decoder.clone(),
            lifecycle: self.starter.lifecycle.clone(),
        };
        let actor = Resharder::new(params);
        self.starter.start(self.arbiter, inbox, actor);
        Consumers {
            _shards: shards,
            _resharder: Some(resharder),
            ..Consumers::default()
        }
    }
}

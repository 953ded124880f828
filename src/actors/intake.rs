//! What all consumers of the broker do: make deliveries of a message's events, and tell the broker
//! what has been settled.

use super::retry_supervisor::{RetrySupervisor, Unreadable};
use crate::broker::channel_ledger::{Acknowledgement, ChannelLedger};
use crate::broker::dead_letter;
use crate::broker::message::{self, Bad, Rulebook};
use crate::config::LiveSettings;
use crate::event::{Delivery, Event, Ticket};
use crate::metrics::Metrics;
use crate::supervision::{Budget, Mailbox, failpoint};
use lapin::Channel;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::sync::Arc;

/// What reading messages takes.
#[derive(Clone)]
pub struct Intake {
    /// Settings; the limits among them change at run time.
    pub settings: LiveSettings,
    /// Who takes what is no event.
    pub retry: Mailbox<RetrySupervisor>,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl Intake {
    /// Enters a message in the ledger and makes deliveries of its events. Returns the bytes it takes.
    pub async fn read(
        &self,
        message: Message,
        ledger: &Arc<ChannelLedger>,
        deliveries: &mut Vec<Delivery>,
    ) -> usize {
        self.metrics.messages_consumed.inc();
        let rules = Rulebook::of(&self.settings.get());
        let tag = message.delivery_tag;
        let contents = message::read(&message.data, &message.properties, &rules);
        let tickets = contents.events.len() + contents.bad.len();
        let events: usize = contents.events.iter().map(Event::footprint).sum();
        let bad: usize = contents.bad.iter().map(Bad::footprint).sum();
        let bytes = message.data.len().max(events + bad);
        ledger.enter(tag, tickets, self.budget.take(bytes));
        // The events of a frame were counted when they were taken, at whatever door.
        if !dead_letter::is_frame(&message.properties) {
            let accepted = self.metrics.accepted.with_label_values(&["amqp"]);
            accepted.inc_by(contents.events.len() as u64);
        }
        for event in contents.events {
            let mut delivery = Delivery::new(event, Ticket::new(ledger.clone(), tag));
            delivery.attempts = contents.attempts;
            delivery.letter = contents.letter;
            delivery
                .span
                .in_scope(|| tracing::debug!(redelivered = message.redelivered, "consumed"));
            deliveries.push(delivery);
        }
        for bad in contents.bad {
            let cause = bad.cause;
            let letter = dead_letter::of_unreadable(
                &message.properties,
                bad,
                &self.settings.get().broker.queue,
                rules.missing_id,
            );
            let unreadable = Unreadable {
                letter,
                ticket: Ticket::new(ledger.clone(), tag),
                cause,
            };
            // While there is room nobody waits for the dead letter's confirm; when there is none,
            // waiting is the back-pressure.
            if let Err(rejected) = self.retry.try_send(unreadable)
                && self.retry.send(rejected.into_message()).await.is_err()
            {
                tracing::warn!("the retry supervisor crashed; a message returns to its queue");
            }
        }
        bytes
    }
}

/// Tells the broker what has been settled, for as long as the channel lives. Where messages keep
/// their order it ends when the first one is to come back: only all together come back in order.
pub async fn acknowledge(channel: &Channel, ledger: &ChannelLedger) -> Result<(), lapin::Error> {
    loop {
        for acknowledgement in ledger.take_settled() {
            failpoint::hit("amqp_consumer.acknowledge");
            match acknowledgement {
                Acknowledgement::UpTo(tag) => {
                    let options = BasicAckOptions { multiple: true };
                    channel.basic_ack(tag, options).await?;
                }
                Acknowledgement::Requeue(_) if ledger.is_ordered() => return Ok(()),
                Acknowledgement::Requeue(tag) => {
                    let options = BasicNackOptions {
                        multiple: false,
                        requeue: true,
                    };
                    channel.basic_nack(tag, options).await?;
                }
            }
        }
        ledger.told();
        if ledger.is_closed() {
            return Ok(());
        }
        ledger.changed().await;
    }
}

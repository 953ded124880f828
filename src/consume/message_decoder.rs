//! Decoding messages into deliveries, and acknowledging what has been settled, for all consumers of
//! the broker.

use super::ack_tracker::{AckTracker, Acknowledgement};
use crate::broker::contents::{DecodeOptions, InvalidItem};
use crate::broker::{dead_letter, headers, message};
use crate::config::LiveSettings;
use crate::event::budget::Budget;
use crate::event::{Delivery, Event, Ticket};
use crate::metrics::Metrics;
use crate::retry::retry_supervisor::{RetrySupervisor, Unreadable};
use crate::supervision::{Mailbox, failpoint};
use lapin::Channel;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::sync::Arc;

#[derive(Clone)]
pub struct MessageDecoder {
    /// Settings; the limits among them change at run time.
    pub settings: LiveSettings,
    /// Takes what is not an event.
    pub retry: Mailbox<RetrySupervisor>,
    /// The bound on bytes in the process.
    pub budget: Budget,
    pub metrics: Arc<Metrics>,
}

impl MessageDecoder {
    /// Adds a message to the tracker and makes deliveries of its events. Returns the bytes it takes.
    pub async fn read(
        &self,
        message: Message,
        tracker: &Arc<AckTracker>,
        deliveries: &mut Vec<Delivery>,
    ) -> usize {
        self.metrics.messages_consumed.inc();
        let rules = DecodeOptions::of(&self.settings.get());
        let tag = message.delivery_tag;
        let contents = message::read(&message.data, &message.properties, &rules);
        let tickets = contents.events.len() + contents.bad.len();
        let events: usize = contents.events.iter().map(Event::footprint).sum();
        let bad: usize = contents.bad.iter().map(InvalidItem::footprint).sum();
        let bytes = message.data.len().max(events + bad);
        tracker.enter(tag, tickets, self.budget.take(bytes));
        // The events of a frame were counted when Eclusa accepted them.
        if !headers::is_frame(&message.properties) {
            let accepted = self.metrics.accepted.with_label_values(&["amqp"]);
            accepted.inc_by(contents.events.len() as u64);
        }
        for event in contents.events {
            let mut delivery = Delivery::new(event, Ticket::new(tracker.clone(), tag));
            delivery.attempts = contents.attempts;
            delivery.letter = contents.letter;
            delivery
                .span
                .in_scope(|| tracing::debug!(redelivered = message.redelivered, "consumed"));
            deliveries.push(delivery);
        }
        for bad in contents.bad {
            if let Some(event_type) = &bad.event_type {
                let labels = [event_type.as_str(), "dead_lettered"];
                self.metrics.schema_invalid.with_label_values(&labels).inc();
            }
            let letter = dead_letter::of_unreadable(
                &message.properties,
                bad,
                &self.settings.get().broker.queue,
                rules.missing_id,
            );
            let unreadable = Unreadable {
                letter,
                ticket: Ticket::new(tracker.clone(), tag),
            };
            // While the mailbox has room the consumer does not wait for the dead letter's confirm.
            // When it is full, awaiting the answer bounds what waits to one message a consumer.
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
/// their order it ends when the first one is returned: only a closing channel requeues in order.
pub async fn acknowledge(channel: &Channel, tracker: &AckTracker) -> Result<(), lapin::Error> {
    loop {
        for acknowledgement in tracker.take_settled() {
            failpoint::hit("amqp_consumer.acknowledge");
            match acknowledgement {
                Acknowledgement::UpTo(tag) => {
                    let options = BasicAckOptions { multiple: true };
                    channel.basic_ack(tag, options).await?;
                }
                Acknowledgement::Requeue(_) if tracker.is_ordered() => return Ok(()),
                Acknowledgement::Requeue(tag) => {
                    let options = BasicNackOptions {
                        multiple: false,
                        requeue: true,
                    };
                    channel.basic_nack(tag, options).await?;
                }
            }
        }
        tracker.told();
        if tracker.is_closed() {
            return Ok(());
        }
        tracker.changed().await;
    }
}

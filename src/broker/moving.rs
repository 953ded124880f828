//! Moving what lies in the queues of one number of shards into those of another, or back onto the
//! work queue. Nobody publishes or consumes meanwhile, so order is a matter of going through each
//! queue from its front. A message is acknowledged when all of it lies in its new queue.

use super::claim::{Look, look_until};
use super::dead_letter;
use super::layout::{Layout, NotYet};
use super::message;
use super::ordered_consumer::OrderedConsumer;
use super::publisher::{self, PERSISTENT, frame_properties};
use super::shards::Shards;
use super::sorting::{self, Outgoing};
use crate::supervision::failpoint;
use futures::StreamExt;
use futures::future::try_join_all;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel};
use std::time::{Duration, Instant};

/// Messages that are there come within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// When none has come for so long, it is time to look whether any are left.
const QUIET: Duration = Duration::from_millis(100);

/// Moves all messages; gives how many there were.
pub(super) async fn all(layout: &Layout<'_>, from: Shards, to: Shards) -> Result<u64, NotYet> {
    let topology = layout.topology;
    // Without shards there is one destination, and the sorting has one bin.
    let bins = Shards {
        count: to.count.max(1),
        ..to
    };
    let confirming = async || {
        let channel = layout.publishing.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok::<_, NotYet>(channel)
    };
    let letters = (confirming().await?, topology.dead_letter_queue().to_owned());
    let mut targets = Vec::new();
    for bin in bins.all() {
        let channel = confirming().await?;
        let queue = match to.count {
            0 => topology.queue().to_owned(),
            _ => to.queue(topology.queue(), bin),
        };
        targets.push((channel, queue));
    }
    let mut moved = 0;
    for shard in from.all() {
        let queue = from.queue(topology.queue(), shard);
        let moving = Moving {
            layout,
            queue,
            prefetch: from.prefetch,
            bins,
            targets: &targets,
            letters: &letters,
        };
        moved += moving.run().await?;
    }
    for (channel, _) in targets.into_iter().chain([letters]) {
        channel.close(200, "moved".into()).await?;
    }
    Ok(moved)
}

struct Moving<'a> {
    layout: &'a Layout<'a>,
    queue: String,
    prefetch: u16,
    bins: Shards,
    targets: &'a [(Channel, String)],
    /// Where dead letters go.
    letters: &'a (Channel, String),
}

impl Moving<'_> {
    /// Moves until nobody consumes the queue and it has no messages.
    async fn run(&self) -> Result<u64, NotYet> {
        let mut moved = 0;
        loop {
            // The consumer of the last time may be counted for a moment. While it is not, what it had
            // in hand is counted among the messages, also what was on its way to it.
            let look = look_until(self.layout.consuming, &self.queue, Look::is_vacant);
            match look.await? {
                None => return Ok(moved),
                Some(found) if !found.certain => return Err(self.is_not_told()),
                Some(found) if found.consumers > 0 => return Err(self.is_consumed()),
                Some(found) if found.messages == 0 => return Ok(moved),
                Some(_) => moved += self.move_messages().await?,
            }
        }
    }

    fn is_consumed(&self) -> NotYet {
        let queue = &self.queue;
        let reason = format!("{queue} is consumed still, by a replica that was there");
        NotYet::Waiting(reason)
    }

    fn is_not_told(&self) -> NotYet {
        let queue = &self.queue;
        NotYet::Waiting(format!("the broker does not say what {queue} holds"))
    }

    /// Moves messages from the front until none come, and a look says that none are left beside those
    /// that may be on their way here.
    async fn move_messages(&self) -> Result<u64, NotYet> {
        let begun = OrderedConsumer::begin(
            self.layout.consuming,
            &self.queue,
            "eclusa-moving",
            self.prefetch,
        );
        let consumer = begun.await?;
        let mut chunks = consumer.chunks(usize::from(self.prefetch.max(1)));
        let mut moved = 0;
        let mut last_came = Instant::now();
        loop {
            let Ok(chunk) = tokio::time::timeout(QUIET, chunks.next()).await else {
                let told = |found: Look| found.consumers > 0;
                match look_until(self.layout.consuming, &self.queue, told).await? {
                    Some(found) if found.consumers > 1 => return Err(self.is_consumed()),
                    Some(found) if found.consumers == 1 && found.messages == 0 => break,
                    _ if last_came.elapsed() < PATIENCE => continue,
                    _ => return Err(self.gives_nothing()),
                }
            };
            let messages = chunk.ok_or_else(|| self.gives_nothing())?;
            let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
            last_came = Instant::now();
            moved += messages.len() as u64;
            let last = messages.last().map(|message| message.delivery_tag);
            self.put(messages).await?;
            failpoint::hit("moving.after_put");
            if let Some(last) = last {
                let options = BasicAckOptions { multiple: true };
                consumer.channel().basic_ack(last, options).await?;
            }
        }
        consumer.end().await;
        Ok(moved)
    }

    fn gives_nothing(&self) -> NotYet {
        NotYet::Waiting(format!("{} does not give its messages", self.queue))
    }

    /// Puts messages into their new queues, those of one queue one after the other.
    async fn put(&self, messages: Vec<Message>) -> Result<(), NotYet> {
        let topology = self.layout.topology;
        let mut events = Vec::new();
        let mut letters = Vec::new();
        for message in messages {
            let contents = message::read(&message.data, &message.properties, self.layout.rules);
            if !dead_letter::is_frame(&message.properties) {
                // Become a frame, it is counted nowhere else.
                let accepted = &self.layout.metrics.accepted;
                let accepted = accepted.with_label_values(&["amqp"]);
                accepted.inc_by(contents.events.len() as u64);
            }
            let (letter, attempts) = (contents.letter, contents.attempts);
            let outgoing = |event| Outgoing {
                event,
                letter,
                attempts,
                with: (),
            };
            events.extend(contents.events.into_iter().map(outgoing));
            // By itself an item of an array may pass for a message.
            letters.extend(contents.bad.into_iter().map(|bad| {
                let (origin, missing_id) = (topology.queue(), self.layout.rules.missing_id);
                let cause = bad.cause;
                let properties = &message.properties;
                (
                    cause,
                    dead_letter::of_unreadable(properties, bad, origin, missing_id),
                )
            }));
        }
        let sorted = sorting::frames(events, self.bins, topology.bounds());
        let putting = sorted
            .into_iter()
            .zip(self.targets)
            .map(|(frames, target)| async move {
                for frame in frames {
                    let properties = frame_properties(frame.letter, frame.attempts);
                    publish(target, &frame.body, properties).await?;
                }
                Ok::<_, NotYet>(())
            });
        try_join_all(putting).await?;
        for (cause, letter) in letters {
            let properties = dead_letter::properties(&letter).with_delivery_mode(PERSISTENT);
            publish(self.letters, &letter.body, properties).await?;
            tracing::warn!(letter = %letter.id, error = letter.failure.error, "dead-lettered");
            let metric = &self.layout.metrics.dead_lettered;
            metric.with_label_values(&[cause.as_str()]).inc();
        }
        Ok(())
    }
}

async fn publish(
    (channel, queue): &(Channel, String),
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), NotYet> {
    let confirmed = publisher::publish_confirmed(channel, queue, body, properties);
    match tokio::time::timeout(PATIENCE, confirmed).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(NotYet::Waiting(format!("{queue} does not take messages"))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(NotYet::Waiting(format!("no confirm from {queue}"))),
    }
}

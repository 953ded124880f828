//! Reading letters again and making their events durable.

use super::{Replayer, Way};
use crate::actors::BatchAccumulator;
use crate::actors::batch_accumulator::Push;
use crate::broker::message::Contents;
use crate::broker::sorting::{self, Outgoing};
use crate::broker::{Publisher, Shards};
use crate::config::Settings;
use crate::event::{Delivery, Event, Outcome, frame, request};
use crate::retry::contents;
use crate::store::dead_letters::LetterSummary;
use crate::supervision::Mailbox;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;

/// How long the events of a chunk may take to become rows.
const ANSWER: Duration = Duration::from_secs(30);

/// What became of one letter.
pub(super) enum Fate {
    Sent,
    /// It went back to the dead letters at once.
    FailedAgain(String),
    /// It cannot be read, or not all of it.
    Unreadable(String),
    /// Somebody has purged it meanwhile.
    Gone,
    /// It could not be sent now.
    NotNow(String),
}

impl Replayer {
    /// Reads the letters and sends their events. Of an array that holds events and others, the
    /// events are sent; the letter stays for the rest.
    pub(super) async fn send(&self, page: &[LetterSummary], dry_run: bool) -> Vec<Fate> {
        let read = join_all(page.iter().map(|letter| self.read(letter.id))).await;
        let mut fates = Vec::with_capacity(page.len());
        let mut letters = Vec::new();
        for (place, (letter, read)) in page.iter().zip(read).enumerate() {
            match read {
                Err(fate) => fates.push(fate),
                Ok(contents) => {
                    let bad: Vec<String> = contents.bad.into_iter().map(|bad| bad.error).collect();
                    fates.push(if bad.is_empty() {
                        Fate::Sent
                    } else {
                        Fate::Unreadable(bad.join("; "))
                    });
                    if !contents.events.is_empty() {
                        letters.push((place, letter.id, contents.events));
                    }
                }
            }
        }
        if dry_run {
            return fates;
        }
        let places: Vec<usize> = letters.iter().map(|(place, ..)| *place).collect();
        let sent = match &self.way {
            Way::Direct(accumulator) => {
                let letters = letters.into_iter().map(|(_, id, events)| (id, events));
                self.write(accumulator, letters.collect()).await
            }
            Way::Queue(publisher) => {
                let publishing = letters
                    .into_iter()
                    .map(|(_, id, events)| self.publish(publisher, id, events));
                join_all(publishing).await
            }
        };
        for (place, sent) in places.into_iter().zip(sent) {
            if let Some(fate) = fates.get_mut(place)
                && !(matches!(sent, Fate::Sent) && matches!(fate, Fate::Unreadable(_)))
            {
                *fate = sent;
            }
        }
        fates
    }

    /// Reads a letter again.
    async fn read(&self, id: Uuid) -> Result<Contents, Fate> {
        match self.letters.get_letter(id).await {
            Ok(Some(letter)) => {
                let settings: Arc<Settings> = Arc::clone(&self.settings.get());
                Ok(contents::read_again(&letter, &settings))
            }
            Ok(None) => Err(Fate::Gone),
            Err(error) => Err(Fate::NotNow(error.to_string())),
        }
    }

    /// Publishes a letter's events as one frame. The tickets answer for them in the accounts, also
    /// when whoever asked for the replay goes away meanwhile.
    async fn publish(&self, publisher: &Publisher, letter: Uuid, events: Vec<Event>) -> Fate {
        let (deliveries, _answer) = self.open(events);
        // Only a letter of one event takes that event back; several could not share its body.
        let back = (deliveries.len() == 1).then_some(letter);
        if let Some(shards) = publisher.shards() {
            return self
                .publish_sorted(publisher, shards, back, deliveries)
                .await;
        }
        let mut encoder = frame::Encoder::default();
        for delivery in &deliveries {
            if let Err(error) = encoder.push(&delivery.event) {
                return Fate::Unreadable(error.to_string());
            }
        }
        let published = match back {
            Some(letter) => publisher.publish_replay(&encoder.finish(), letter).await,
            None => publisher.publish_frame(&encoder.finish()).await,
        };
        match published {
            Ok(()) => {
                self.metrics.frames_published.inc();
                for delivery in deliveries {
                    delivery.ticket.settle(Outcome::Published);
                }
                Fate::Sent
            }
            Err(error) => Fate::NotNow(error.to_string()),
        }
    }

    /// Publishes a letter's events to the shards of their users.
    async fn publish_sorted(
        &self,
        publisher: &Publisher,
        shards: Shards,
        letter: Option<Uuid>,
        deliveries: Vec<Delivery>,
    ) -> Fate {
        let outgoing = deliveries.into_iter().map(|delivery| Outgoing {
            event: delivery.event,
            letter,
            attempts: 0,
            with: delivery.ticket,
        });
        let sorted = sorting::frames(outgoing, shards, publisher.bounds());
        for (shard, frames) in sorted.into_iter().enumerate() {
            for frame in frames {
                let published = publisher.publish_to_shard(shard, &frame.body, frame.letter, 0);
                if let Err(error) = published.await {
                    return Fate::NotNow(error.to_string());
                }
                self.metrics.frames_published.inc();
                for ticket in frame.with {
                    ticket.settle(Outcome::Published);
                }
            }
        }
        Fate::Sent
    }

    fn open(&self, events: Vec<Event>) -> (Vec<Delivery>, Receiver<Vec<Outcome>>) {
        let weight = events.iter().map(Event::footprint).sum();
        let accounts = self.metrics.ledgers.intake.clone();
        request::open(events, accounts, self.budget.take(weight), None)
    }

    /// Writes the events of all letters of a chunk, handed over together so that they keep their
    /// order.
    async fn write(
        &self,
        accumulator: &Mailbox<BatchAccumulator>,
        letters: Vec<(Uuid, Vec<Event>)>,
    ) -> Vec<Fate> {
        let mut all = Vec::new();
        let mut answers = Vec::with_capacity(letters.len());
        for (letter, events) in letters {
            // As in `publish`: only a letter of one event takes that event back.
            let letter = (events.len() == 1).then_some(letter);
            let (deliveries, answer) = self.open(events);
            all.extend(deliveries.into_iter().map(|mut delivery| {
                delivery.letter = letter;
                delivery
            }));
            answers.push(answer);
        }
        if !all.is_empty() {
            // If the accumulator crashes over the message, the tickets in it answer.
            let _ = accumulator.send(Push(all)).await;
        }
        // A store that goes away now may stay away for long; the letters are as they were.
        let answers = answers.into_iter().map(async |answer| {
            match tokio::time::timeout(ANSWER, answer).await {
                Ok(outcomes) => fate(outcomes),
                Err(_) => Fate::NotNow(format!("not written within {ANSWER:?}")),
            }
        });
        join_all(answers).await
    }
}

/// What became of a letter, from what became of its events.
fn fate(outcomes: Result<Vec<Outcome>, RecvError>) -> Fate {
    let outcomes = outcomes.unwrap_or_else(|_| vec![Outcome::Returned]);
    let mut fate = Fate::Sent;
    for outcome in outcomes {
        if !outcome.is_durable() {
            return Fate::NotNow("the store cannot be written now".to_owned());
        }
        if let Outcome::DeadLettered(cause) = outcome {
            fate = Fate::FailedAgain(format!("failed again: {}", cause.as_str()));
        }
    }
    fate
}

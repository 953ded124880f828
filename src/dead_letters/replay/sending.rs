//! Reading letters again and making their events durable.

use super::{ReplayTarget, Replayer};
use crate::broker::contents::Contents;
use crate::broker::{OutgoingFrame, Publisher};
use crate::config::Settings;
use crate::dead_letters::contents;
use crate::event::{Delivery, Event, Outcome};
use crate::store::dead_letters::DeadLetterSummary;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;
use uuid::Uuid;

/// How long the events of a chunk may take to become rows.
const ANSWER: Duration = Duration::from_secs(30);

/// What became of one letter.
pub(super) enum ReplayOutcome {
    Sent,
    /// It went back to the dead letters at once.
    FailedAgain(String),
    /// It cannot be read, or not all of it.
    Unreadable(String),
    /// It has been purged meanwhile.
    Gone,
    /// It could not be sent now.
    NotNow(String),
}

impl Replayer {
    /// Reads the letters and sends their events. Of an array that holds events and others, the
    /// events are sent; the letter stays for the rest.
    pub(super) async fn send(
        &self,
        page: &[DeadLetterSummary],
        dry_run: bool,
    ) -> Vec<ReplayOutcome> {
        let read = join_all(page.iter().map(|letter| self.read(letter.id))).await;
        let mut fates = Vec::with_capacity(page.len());
        let mut letters = Vec::new();
        for (place, (letter, read)) in page.iter().zip(read).enumerate() {
            match read {
                Err(fate) => fates.push(fate),
                Ok(contents) => {
                    let bad: Vec<String> = contents.bad.into_iter().map(|bad| bad.error).collect();
                    fates.push(if bad.is_empty() {
                        ReplayOutcome::Sent
                    } else {
                        ReplayOutcome::Unreadable(bad.join("; "))
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
        let sent = match &self.target {
            ReplayTarget::Store => {
                let letters = letters.into_iter().map(|(_, id, events)| (id, events));
                self.write(letters.collect()).await
            }
            ReplayTarget::Queue(publisher) => {
                let publishing = letters
                    .into_iter()
                    .map(|(_, id, events)| self.publish(publisher, id, events));
                join_all(publishing).await
            }
        };
        for (place, sent) in places.into_iter().zip(sent) {
            if let Some(fate) = fates.get_mut(place)
                && !(matches!(sent, ReplayOutcome::Sent)
                    && matches!(fate, ReplayOutcome::Unreadable(_)))
            {
                *fate = sent;
            }
        }
        fates
    }

    /// Reads a letter again.
    async fn read(&self, id: Uuid) -> Result<Contents, ReplayOutcome> {
        match self.letters.get_letter(id).await {
            Ok(Some(letter)) => {
                let settings: Arc<Settings> = Arc::clone(&self.settings.get());
                Ok(contents::read_again(&letter, &settings))
            }
            Ok(None) => Err(ReplayOutcome::Gone),
            Err(error) => Err(ReplayOutcome::NotNow(error.to_string())),
        }
    }

    /// Publishes a letter's events. The tickets settle them in the accounts, also when the replay is
    /// abandoned meanwhile.
    async fn publish(
        &self,
        publisher: &Publisher,
        letter: Uuid,
        events: Vec<Event>,
    ) -> ReplayOutcome {
        let (deliveries, _answer) = self.open(letter, events);
        for (destination, mut waiting) in publisher.route(deliveries) {
            while let Some(frame) = OutgoingFrame::fill(&mut waiting, publisher.bounds()) {
                if let Err(error) = publisher.publish_frame(destination, &frame).await {
                    return ReplayOutcome::NotNow(error.to_string());
                }
                self.metrics.frames_published.inc();
                for delivery in frame.deliveries {
                    delivery.ticket.settle(Outcome::Published);
                }
            }
        }
        ReplayOutcome::Sent
    }

    /// Takes the events into the accounts. Only a letter of one event takes that event back if it
    /// fails again; several could not share its body.
    fn open(&self, letter: Uuid, events: Vec<Event>) -> (Vec<Delivery>, Receiver<Vec<Outcome>>) {
        let letter = (events.len() == 1).then_some(letter);
        let weight = events.iter().map(Event::footprint).sum();
        let (mut deliveries, answer) = self.flow.open(events, self.budget.take(weight));
        for delivery in &mut deliveries {
            delivery.letter = letter;
        }
        (deliveries, answer)
    }

    /// Writes the events of all letters of a chunk, handed over together so that they keep their
    /// order.
    async fn write(&self, letters: Vec<(Uuid, Vec<Event>)>) -> Vec<ReplayOutcome> {
        let mut all = Vec::new();
        let mut answers = Vec::with_capacity(letters.len());
        for (letter, events) in letters {
            let (deliveries, answer) = self.open(letter, events);
            all.extend(deliveries);
            answers.push(answer);
        }
        if !all.is_empty() {
            self.flow.write(all).await;
        }
        // A store that goes away now may stay away for long; the letters are as they were.
        let answers = answers.into_iter().map(async |answer| {
            match tokio::time::timeout(ANSWER, answer).await {
                Ok(outcomes) => fate(outcomes),
                Err(_) => ReplayOutcome::NotNow(format!("not written within {ANSWER:?}")),
            }
        });
        join_all(answers).await
    }
}

/// What became of a letter, from what became of its events.
fn fate(outcomes: Result<Vec<Outcome>, RecvError>) -> ReplayOutcome {
    let outcomes = outcomes.unwrap_or_else(|_| vec![Outcome::Returned]);
    let mut fate = ReplayOutcome::Sent;
    for outcome in outcomes {
        if !outcome.is_durable() {
            return ReplayOutcome::NotNow("the store cannot be written now".to_owned());
        }
        if let Outcome::DeadLettered(cause) = outcome {
            fate = ReplayOutcome::FailedAgain(format!("failed again: {}", cause.as_str()));
        }
    }
    fate
}

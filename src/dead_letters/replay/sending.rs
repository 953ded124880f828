//! Reading letters again and making their events durable.

use super::{ReplayTarget, Replayer};
use crate::broker::contents::Contents;
use crate::broker::{OutgoingFrame, Publisher};
use crate::config::Settings;
use crate::dead_letters::contents;
use crate::event::{Cause, Delivery, Event, Outcome};
use crate::store::dead_letters::{DeadLetterSummary, Replayed};
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
    /// Its follower has it, and the letter is marked.
    HandedOver,
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
        let of_followers = self.hand_over(page, dry_run).await;
        let read = page
            .iter()
            .zip(of_followers)
            .map(async |(letter, fate)| match fate {
                Some(fate) => Err(fate),
                None => self.read(letter.id).await,
            });
        let read = join_all(read).await;
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

    /// Hands the letters of followers to them; `None` for those of events.
    async fn hand_over(
        &self,
        page: &[DeadLetterSummary],
        dry_run: bool,
    ) -> Vec<Option<ReplayOutcome>> {
        let is_follower = |letter: &DeadLetterSummary| {
            Cause::parse(&letter.failure.cause).is_some_and(Cause::is_of_follower)
        };
        let letters: Vec<Replayed> = page
            .iter()
            .filter(|letter| is_follower(letter))
            .map(|letter| Replayed {
                id: letter.id,
                failed_at: letter.failure.at,
            })
            .collect();
        let requested = match letters.is_empty() || dry_run {
            true => Ok(Vec::new()),
            false => self.followers.request_replays(&letters).await,
        };
        let requested = &requested;
        let fates = page.iter().map(async |letter| match requested {
            _ if !is_follower(letter) => None,
            Ok(ids) if ids.contains(&letter.id) => Some(ReplayOutcome::HandedOver),
            Ok(_) => Some(self.of_follower(letter, dry_run).await),
            Err(error) => Some(ReplayOutcome::NotNow(error.to_string())),
        });
        join_all(fates).await
    }

    /// What becomes of a follower's letter that it does not have.
    async fn of_follower(&self, letter: &DeadLetterSummary, dry_run: bool) -> ReplayOutcome {
        match self.letters.get_letter(letter.id).await {
            Ok(Some(whole)) if !whole.headers.contains_key("position") => {
                let reason = "its event was no longer in the log when it failed";
                ReplayOutcome::Unreadable(reason.to_owned())
            }
            Ok(Some(_)) if dry_run => ReplayOutcome::HandedOver,
            Ok(Some(_)) => ReplayOutcome::Unreadable(format!(
                "there is no follower {}, or the letter has changed",
                letter.origin
            )),
            Ok(None) => ReplayOutcome::Gone,
            Err(error) => ReplayOutcome::NotNow(error.to_string()),
        }
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

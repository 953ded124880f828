//! `RetrySupervisor`: takes what failed, sends it round again after a delay or puts it aside, and
//! only then settles its tickets.

use crate::broker::dead_letter;
use crate::broker::publisher::{PublishError, Publisher};
use crate::config::retry::RetrySettings;
use crate::event::outcome::Refusal;
use crate::event::{Cause, Delivery, Outcome, Patience, Ticket, item};
use crate::metrics::Metrics;
use crate::retry::{Verdict, policy};
use crate::store::dead_letters::{self, DeadLetter};
use crate::store::{DeadLetterStore, ErrorKind, StoreError};
use crate::supervision::{ActorMessage, Backoff, Tracked, failpoint};
use actix::{Actor, Context, Handler, Message, ResponseFuture, Supervised};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Where a letter comes from that no queue had.
const DIRECT: &str = "direct";
/// How often a letter is written to the store when that fails in a way that may pass.
const TRIES: u32 = 4;

/// What the supervisor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// The way to the retry queues and the dead-letter queue; none in direct mode.
    pub publisher: Option<Publisher>,
    /// The work queue, if there is one.
    pub queue: Option<String>,
    /// Where dead letters are kept; in full mode they go there by way of their queue.
    pub letters: Arc<dyn DeadLetterStore>,
    /// How often and how far apart.
    pub settings: RetrySettings,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct RetrySupervisor {
    wiring: Wiring,
}

/// In which way events failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may pass; with this cause it is dead-lettered when the attempts are used up.
    MayPass(Cause),
    /// It will not.
    Dead(Cause),
}

/// Events that could not be written.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Failed {
    /// The events with their tickets.
    pub deliveries: Vec<Delivery>,
    /// In which way.
    pub failure: Failure,
    /// The error's text.
    pub error: String,
    /// The store's code for it.
    pub sqlstate: Option<String>,
}

/// A message, or an item of one, that is no event.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unreadable {
    /// The dead letter it becomes.
    pub letter: DeadLetter,
    /// Who is to hear what became of it.
    pub ticket: Ticket,
    /// Malformed or invalid.
    pub cause: Cause,
}

impl ActorMessage for Failed {
    const NAME: &'static str = "failed";
}
impl ActorMessage for Unreadable {
    const NAME: &'static str = "unreadable";
}

impl RetrySupervisor {
    /// A supervisor.
    pub fn new(wiring: Wiring) -> Self {
        Self { wiring }
    }
}

impl Actor for RetrySupervisor {
    type Context = Context<Self>;
}

impl Supervised for RetrySupervisor {}

impl Handler<Tracked<Failed>> for RetrySupervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: Tracked<Failed>, _: &mut Self::Context) -> Self::Result {
        let Some((failed, handling)) = message.open() else {
            return Box::pin(std::future::ready(()));
        };
        failpoint::hit("retry_supervisor.failed");
        let wiring = self.wiring.clone();
        Box::pin(async move {
            let _handling = handling;
            let (failure, error, sqlstate) = (failed.failure, failed.error, failed.sqlstate);
            join_all(
                failed.deliveries.into_iter().map(|delivery| {
                    wiring.follow_up(delivery, failure, &error, sqlstate.as_deref())
                }),
            )
            .await;
        })
    }
}

impl Handler<Tracked<Unreadable>> for RetrySupervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: Tracked<Unreadable>, _: &mut Self::Context) -> Self::Result {
        let Some((unreadable, handling)) = message.open() else {
            return Box::pin(std::future::ready(()));
        };
        failpoint::hit("retry_supervisor.unreadable");
        let wiring = self.wiring.clone();
        Box::pin(async move {
            let _handling = handling;
            let Unreadable {
                letter,
                ticket,
                cause,
            } = unreadable;
            wiring.bury(letter, cause, ticket).await;
        })
    }
}

impl Wiring {
    fn origin(&self) -> &str {
        self.queue.as_deref().unwrap_or(DIRECT)
    }

    /// Does with one event what the policy says.
    async fn follow_up(
        &self,
        delivery: Delivery,
        failure: Failure,
        error: &str,
        sqlstate: Option<&str>,
    ) {
        let verdict = match failure {
            Failure::MayPass(exhausted) => {
                policy::after_failure(delivery.attempts, exhausted, &self.settings)
            }
            Failure::Dead(cause) => Verdict::Dead(cause),
        };
        match verdict {
            Verdict::Again { delay, attempts } => {
                self.send_round(delivery, delay, attempts, error).await;
            }
            Verdict::Dead(cause) => {
                let failure = dead_letters::Failure {
                    at: item::now(),
                    cause: cause.as_str().to_owned(),
                    error: error.to_owned(),
                    sqlstate: sqlstate.map(str::to_owned),
                    attempts: delivery.attempts.saturating_add(1),
                };
                let letter =
                    dead_letter::of_event(&delivery.event, delivery.letter, failure, self.origin());
                match letter {
                    Ok(letter) => self.bury(letter, cause, delivery.ticket).await,
                    Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
                }
            }
        }
    }

    /// Puts an event on the retry queue of a delay.
    async fn send_round(&self, delivery: Delivery, delay: Duration, attempts: u32, error: &str) {
        let Some(publisher) = &self.publisher else {
            // There is no queue to wait in; its caller is told to come back.
            let outcome = Outcome::Refused(Refusal::Unavailable);
            delivery.ticket.settle(outcome);
            return;
        };
        let sent = publisher
            .publish_retry(&delivery.event, delay, attempts, delivery.letter, error)
            .await;
        failpoint::hit("retry_supervisor.after_publish");
        match sent {
            Ok(()) => {
                self.metrics.retried.inc();
                delivery.ticket.settle(Outcome::Retried);
            }
            Err(error) => unpublished("retry queue", &error).await,
        }
    }

    /// Puts a letter where it is durable, and only then settles its ticket.
    async fn bury(&self, letter: DeadLetter, cause: Cause, ticket: Ticket) {
        let failure = letter.failure.clone();
        let (id, message_id) = (letter.id, letter.message_id.clone());
        let buried = match &self.publisher {
            Some(publisher) => {
                let sent = publisher.publish_dead_letter(&letter).await;
                failpoint::hit("retry_supervisor.after_publish");
                match sent {
                    Ok(()) => Ok(()),
                    // No queue has the event: it came while the broker was away. Should the letter
                    // be on its queue all the same, it is the same letter there.
                    Err(_) if ticket.patience() == Patience::Caller => {
                        let origin = DIRECT.to_owned();
                        self.keep(DeadLetter { origin, ..letter }).await
                    }
                    // The table is as good a place, and its letter is the same. Otherwise a message
                    // that nobody can put aside would come back again and again.
                    Err(error) => match self.keep(letter).await {
                        Ok(()) => Ok(()),
                        Err(_) => return unpublished("dead-letter queue", &error).await,
                    },
                }
            }
            None => self.keep(letter).await,
        };
        match buried {
            Ok(()) => {
                tracing::warn!(
                    letter = %id,
                    cause = cause.as_str(),
                    error = failure.error,
                    sqlstate = failure.sqlstate,
                    attempts = failure.attempts,
                    message_id,
                    "dead-lettered"
                );
                self.metrics
                    .dead_lettered
                    .with_label_values(&[cause.as_str()])
                    .inc();
                ticket.settle(Outcome::DeadLettered(cause));
            }
            Err(error) => {
                tracing::error!(%error, "a dead letter cannot be kept; its caller is told to come back");
                ticket.settle(Outcome::Refused(Refusal::Unavailable));
            }
        }
    }

    /// Commits a letter in the table.
    async fn keep(&self, letter: DeadLetter) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut tries = 0;
        loop {
            let result = self.letters.bury(vec![letter.clone()]).await;
            failpoint::hit("retry_supervisor.after_bury");
            tries += 1;
            match result {
                Err(error) if error.kind() == ErrorKind::Transient && tries < TRIES => {
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                result => return result.map(|_| ()),
            }
        }
    }
}

/// The ticket is dropped with the future that called this, so the message returns to the work
/// queue: after a while, since the broker delivers it again at once.
async fn unpublished(queue: &str, error: &PublishError) {
    const HOLD: Duration = Duration::from_secs(2);
    tracing::error!(queue, %error, "not confirmed by the broker; the message returns to the work queue");
    tokio::time::sleep(HOLD).await;
}

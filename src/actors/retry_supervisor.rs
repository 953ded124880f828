//! `RetrySupervisor`: takes what failed, sends it round again after a delay or puts it aside, and
//! only then settles its tickets.

use crate::broker::dead_letter::{self, DeadLetter};
use crate::broker::publisher::{PublishError, Publisher};
use crate::config::retry::RetrySettings;
use crate::event::outcome::Refusal;
use crate::event::{Cause, Delivery, Outcome, Ticket};
use crate::metrics::Metrics;
use crate::retry::{Verdict, policy};
use crate::supervision::{ActorMessage, Tracked, failpoint};
use actix::{Actor, Context, Handler, Message, ResponseFuture, Supervised};
use futures::future::join_all;
use std::sync::Arc;

/// What the supervisor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// The way to the retry queues and the dead-letter queue; none in direct mode.
    pub publisher: Option<Publisher>,
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
    /// Its bytes as they came.
    pub body: Vec<u8>,
    /// What they were said to be.
    pub content_type: Option<String>,
    /// Its AMQP `message_id`.
    pub message_id: Option<String>,
    /// Who is to hear what became of it.
    pub ticket: Ticket,
    /// Malformed or invalid.
    pub cause: Cause,
    /// What is wrong with it.
    pub error: String,
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
            let letter = DeadLetter {
                body: unreadable.body,
                content_type: unreadable.content_type,
                message_id: unreadable.message_id,
                frame: false,
                cause: unreadable.cause,
                error: unreadable.error,
                sqlstate: None,
                attempts: 1,
            };
            wiring.bury(letter, unreadable.ticket).await;
        })
    }
}

impl Wiring {
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
        let Some(publisher) = &self.publisher else {
            // Without a broker there is no queue to put it aside in; its caller still waits.
            tracing::error!(event_id = %delivery.event.event_id, error, sqlstate, "event refused by the store");
            delivery.ticket.settle(Outcome::Refused(Refusal::Rejected));
            return;
        };
        match verdict {
            Verdict::Again { delay, attempts } => {
                let sent = publisher
                    .publish_retry(&delivery.event, delay, attempts, error)
                    .await;
                failpoint::hit("retry_supervisor.after_publish");
                match sent {
                    Ok(()) => {
                        self.metrics.retried.inc();
                        delivery.ticket.settle(Outcome::Retried);
                    }
                    Err(error) => unpublished("retry queue", &error),
                }
            }
            Verdict::Dead(cause) => {
                let letter = dead_letter::of_event(
                    &delivery.event,
                    cause,
                    error,
                    sqlstate,
                    delivery.attempts.saturating_add(1),
                );
                match letter {
                    Ok(letter) => self.bury(letter, delivery.ticket).await,
                    Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
                }
            }
        }
    }

    /// Publishes a dead letter and settles its ticket once the broker has it.
    async fn bury(&self, letter: DeadLetter, ticket: Ticket) {
        let cause = letter.cause;
        let Some(publisher) = &self.publisher else {
            ticket.settle(Outcome::Refused(Refusal::Rejected));
            return;
        };
        let sent = publisher.publish_dead_letter(&letter).await;
        failpoint::hit("retry_supervisor.after_publish");
        match sent {
            Ok(()) => {
                tracing::warn!(
                    cause = cause.as_str(),
                    sqlstate = letter.sqlstate,
                    attempts = letter.attempts,
                    message_id = letter.message_id,
                    "dead-lettered"
                );
                self.metrics
                    .dead_lettered
                    .with_label_values(&[cause.as_str()])
                    .inc();
                ticket.settle(Outcome::DeadLettered(cause));
            }
            Err(error) => unpublished("dead-letter queue", &error),
        }
    }
}

/// The ticket is dropped with the future that called this, so the message returns to its queue.
fn unpublished(queue: &str, error: &PublishError) {
    tracing::error!(queue, %error, "not confirmed by the broker; the message returns to the work queue");
}

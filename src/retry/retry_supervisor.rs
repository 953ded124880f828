//! `RetrySupervisor`: publishes failed events to a retry queue or dead-letters them, and only then
//! settles their tickets.
//!
//! The work runs in the actor's context, under its supervisor: a panic in it restarts the actor,
//! and all tickets in its hands return.

use super::policy;
use crate::broker::dead_letter;
use crate::broker::publisher::{PublishError, Publisher};
use crate::event::{CallerMode, Cause, Delivery, Outcome, Ticket, item};
use crate::metrics::Metrics;
use crate::store::dead_letters::{DeadLetter, DeadLetterFailure};
use crate::store::{DeadLetterStore, StoreError};
use crate::supervision::{ActorMessage, Backoff, Handling, Tracked, failpoint};
use actix::{
    Actor, ActorFuture, AsyncContext, Context, Handler, Message, ResponseFuture, Supervised,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The origin of a dead letter that came from no queue.
const DIRECT: &str = "direct";
/// Messages handled at one time. Others wait in the mailbox, whose bound then holds.
const CONCURRENCY: usize = 256;

/// What the supervisor works with.
#[derive(Clone)]
pub struct RetrySupervisorParams {
    /// Publishes to the retry queues and the dead-letter queue; none in the direct modes.
    pub publisher: Option<Publisher>,
    /// The work queue, if there is one.
    pub queue: Option<String>,
    /// The table of dead letters; in full mode they reach it through their queue.
    pub letters: Arc<dyn DeadLetterStore>,
    pub metrics: Arc<Metrics>,
}

/// Retries and dead-letters failed events, a bounded number at a time.
pub struct RetrySupervisor {
    params: RetrySupervisorParams,
    work: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// An event that could not be written.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Failed {
    /// The event with its ticket, and the attempts before this one.
    pub delivery: Delivery,
    pub error: StoreError,
    /// The delay of its retry queue; `None` dead-letters it.
    pub retry_in: Option<Duration>,
}

/// A message, or an item of one, that is no event; or an event that breaks its schema.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unreadable {
    /// The dead letter it becomes.
    pub letter: DeadLetter,
    /// Settled when the dead letter is durable.
    pub ticket: Ticket,
}

impl Unreadable {
    /// An event of a caller that breaks the schema of its type.
    ///
    /// # Errors
    /// serde_json's, which do not occur for an event's fields.
    pub fn of_event(delivery: Delivery, reason: String) -> Result<Self, serde_json::Error> {
        let failure = DeadLetterFailure {
            at: item::now(),
            cause: Cause::Schema.as_str().to_owned(),
            error: reason,
            sqlstate: None,
            attempts: 1,
        };
        Ok(Self {
            letter: dead_letter::of_event(&delivery.event, delivery.letter, failure, DIRECT)?,
            ticket: delivery.ticket,
        })
    }
}

impl ActorMessage for Failed {
    fn name(&self) -> &'static str {
        "failed"
    }
}
impl ActorMessage for Unreadable {
    fn name(&self) -> &'static str {
        "unreadable"
    }
}

impl RetrySupervisor {
    /// A supervisor with nothing to do.
    pub fn new(params: RetrySupervisorParams) -> Self {
        Self {
            params,
            work: FuturesUnordered::new(),
        }
    }

    /// Adds work, and takes no further message while there is too much of it. The reply only waits
    /// for the work, which ends unfinished when the actor restarts.
    fn begin(
        &mut self,
        handling: Handling,
        work: impl Future<Output = ()> + Send + 'static,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<()> {
        let (done, finished) = oneshot::channel::<()>();
        self.work.push(Box::pin(async move {
            work.await;
            drop((handling, done));
        }));
        if self.work.len() >= CONCURRENCY {
            ctx.wait(AwaitRoom { below: CONCURRENCY });
        }
        Box::pin(async move { drop(finished.await) })
    }
}

/// Advances the supervisor's work until less than `below` of it is left.
struct AwaitRoom {
    below: usize,
}

impl ActorFuture<RetrySupervisor> for AwaitRoom {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        supervisor: &mut RetrySupervisor,
        _: &mut Context<RetrySupervisor>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        while let Poll::Ready(Some(())) = supervisor.work.poll_next_unpin(task) {}
        if supervisor.work.len() < self.below {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Actor for RetrySupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Never ends; it is polled behind each message.
        ctx.spawn(AwaitRoom { below: 0 });
    }
}

impl Supervised for RetrySupervisor {
    fn restarting(&mut self, _: &mut Self::Context) {
        // Drops the tickets, so that their events return.
        self.work = FuturesUnordered::new();
    }
}

impl Handler<Tracked<Failed>> for RetrySupervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: Tracked<Failed>, ctx: &mut Self::Context) -> Self::Result {
        let (failed, handling) = message.open();
        failpoint::hit("retry_supervisor.failed");
        let work = self.params.clone().follow_up(failed);
        self.begin(handling, work, ctx)
    }
}

impl Handler<Tracked<Unreadable>> for RetrySupervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: Tracked<Unreadable>, ctx: &mut Self::Context) -> Self::Result {
        let (unreadable, handling) = message.open();
        failpoint::hit("retry_supervisor.unreadable");
        let work = self.params.clone();
        let work = async move { work.insert(unreadable.letter, unreadable.ticket).await };
        self.begin(handling, work, ctx)
    }
}

impl RetrySupervisorParams {
    /// Sends an event to its retry queue, or dead-letters it.
    async fn follow_up(self, failed: Failed) {
        let (delivery, error) = (failed.delivery, failed.error);
        if let Some(delay) = failed.retry_in {
            return self.retry(delivery, delay, &error).await;
        }
        let failure = DeadLetterFailure {
            at: item::now(),
            cause: error.cause().as_str().to_owned(),
            error: error.to_string(),
            sqlstate: error.sqlstate().map(str::to_owned),
            attempts: delivery.attempts.saturating_add(1),
        };
        let origin = self.queue.as_deref().unwrap_or(DIRECT);
        match dead_letter::of_event(&delivery.event, delivery.letter, failure, origin) {
            Ok(letter) => self.insert(letter, delivery.ticket).await,
            Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
        }
    }

    /// Publishes an event to the retry queue of a delay.
    async fn retry(&self, delivery: Delivery, delay: Duration, error: &StoreError) {
        let Some(publisher) = &self.publisher else {
            // Without a queue to wait in it returns to its source, as the ticket is dropped.
            return;
        };
        let attempts = delivery.attempts.saturating_add(1);
        let text = error.to_string();
        let sent = publisher
            .publish_retry(&delivery.event, delay, attempts, delivery.letter, &text)
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

    /// Makes a dead letter durable, and only then settles its ticket.
    async fn insert(&self, letter: DeadLetter, ticket: Ticket) {
        let (failure, cause) = (letter.failure.clone(), letter.cause());
        let (id, message_id) = (letter.id, letter.message_id.clone());
        let inserted = match &self.publisher {
            Some(publisher) => {
                let sent = publisher.publish_dead_letter(&letter).await;
                failpoint::hit("retry_supervisor.after_publish");
                match sent {
                    Ok(()) => Ok(()),
                    // No queue has the event: it came while the broker was unavailable. Should the
                    // dead letter be on its queue all the same, it has the same id there.
                    Err(_) if ticket.caller_mode() == CallerMode::Caller => {
                        let origin = DIRECT.to_owned();
                        self.keep(DeadLetter { origin, ..letter }).await
                    }
                    // The table is as durable, and the id is the same. Otherwise a message that
                    // cannot be dead-lettered would be delivered again and again.
                    Err(error) => match self.keep(letter).await {
                        Ok(()) => Ok(()),
                        Err(_) => return unpublished("dead-letter queue", &error).await,
                    },
                }
            }
            None => self.keep(letter).await,
        };
        match inserted {
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
                tracing::error!(%error, "a dead letter cannot be kept; its caller is told to repeat the event");
                ticket.settle(Outcome::Refused);
            }
        }
    }

    /// Commits a dead letter in the table.
    async fn keep(&self, letter: DeadLetter) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for tries in 1.. {
            let result = self.letters.insert(vec![letter.clone()]).await;
            failpoint::hit("retry_supervisor.after_insert");
            match result {
                Err(error) if policy::inserts_again(&error, tries) => {
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                result => return result.map(drop),
            }
        }
        Ok(())
    }
}

/// The ticket is dropped with the future that called this, so the message returns to the work
/// queue: after a while, since the broker delivers it again at once.
async fn unpublished(queue: &str, error: &PublishError) {
    const HOLD: Duration = Duration::from_secs(2);
    tracing::error!(queue, %error, "not confirmed by the broker; the message returns to the work queue");
    tokio::time::sleep(HOLD).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture;
    use crate::store::dead_letters::DeadLetterFilter;
    use crate::store::sqlite::{SqliteOptions, SqliteStore, migrate};
    use crate::supervision::mailbox::mailbox;
    use crate::supervision::{HealthBoard, Lifecycle, RestartPolicy, supervise};
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, SqliteConnection};
    use uuid::Uuid;

    /// While the store is locked by another process.
    #[actix::test]
    async fn what_exceeds_the_concurrency_waits_in_the_mailbox() {
        const WAITING: usize = 44;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        migrate(&path).await.unwrap();
        let store = Arc::new(SqliteStore::open(&SqliteOptions::new(&path)).await.unwrap());
        let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();

        let metrics = Arc::new(Metrics::new().unwrap());
        let health = HealthBoard::default();
        let (supervisor, inbox) = mailbox("retry_supervisor", 0, 1_024, &metrics, &health);
        let actor = RetrySupervisor::new(RetrySupervisorParams {
            publisher: None,
            queue: None,
            letters: store.clone(),
            metrics: Arc::clone(&metrics),
        });
        let policy = RestartPolicy::default();
        supervise(inbox, actor, policy, &metrics, &Lifecycle::default());
        let deliveries = fixture::deliveries(CONCURRENCY + WAITING, CallerMode::Caller);
        for delivery in deliveries {
            let failure = DeadLetterFailure {
                at: item::now(),
                cause: "malformed".to_owned(),
                error: String::new(),
                sqlstate: None,
                attempts: 1,
            };
            let unreadable = Unreadable {
                letter: DeadLetter::new(Uuid::now_v7(), failure, DIRECT, Vec::new()),
                ticket: delivery.ticket,
            };
            assert!(supervisor.try_send(unreadable).is_ok());
        }
        let depth = metrics
            .mailbox_depth
            .with_label_values(&["retry_supervisor"]);
        let until = async |what: &str, reached: &dyn Fn() -> bool| {
            let waiting = async {
                while !reached() {
                    tokio::task::yield_now().await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
            assert!(waited.is_ok(), "{what}");
        };
        until("the others wait", &|| depth.get() == WAITING as i64).await;
        other.batch_execute("COMMIT").unwrap();
        let dead = metrics.dead_lettered.with_label_values(&["malformed"]);
        let all = (CONCURRENCY + WAITING) as u64;
        until("all are dead-lettered", &|| dead.get() == all).await;
        let filter = DeadLetterFilter::default();
        assert_eq!(store.count_letters(&filter).await.unwrap(), all);
        assert_eq!(depth.get(), 0);
    }
}

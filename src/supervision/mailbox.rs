//! Mailboxes with metrics: depth, waiting and handling time, progress.
//!
//! actix shows no mailbox length, so every message travels as [`Tracked`], which counts itself in
//! when it is made and out when it is opened or dropped.

use super::HealthBoard;
use crate::metrics::Metrics;
use actix::dev::channel::{AddressReceiver, channel};
use actix::dev::{MessageResponse, ToEnvelope};
use actix::prelude::SendError;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message, Recipient};
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramVec, IntGauge};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A message that a tracked mailbox carries.
pub trait ActorMessage: Message + Send + 'static {
    /// Its name in metrics.
    fn name(&self) -> &'static str;
}

/// What is known of one actor's mailbox.
pub struct MailboxStats {
    actor: &'static str,
    instance: String,
    waiting: AtomicI64,
    epoch: Instant,
    progress: AtomicU64,
    depth: IntGauge,
    wait: Histogram,
    handle: HistogramVec,
    /// The histograms of the messages handled so far, by name: a handful.
    handled: RwLock<Vec<(&'static str, Histogram)>>,
}

impl MailboxStats {
    /// The actor and which of its kind, such as `db_writer/1`.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How long messages have been waiting without any being taken: zero while none wait.
    pub fn stuck_for(&self) -> Duration {
        if self.waiting.load(Ordering::Acquire) <= 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.progress.load(Ordering::Acquire));
        self.epoch.elapsed().saturating_sub(last)
    }

    fn progressed(&self, now: Instant) {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.progress.store(since, Ordering::Release);
    }

    /// A message has left the mailbox.
    fn taken(&self, now: Instant) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.progressed(now);
        self.depth.dec();
    }

    fn handled(&self, message: &'static str, time: Duration) {
        let seconds = time.as_secs_f64();
        let known = self.handled.read();
        if let Some((_, histogram)) = known.iter().find(|(name, _)| *name == message) {
            histogram.observe(seconds);
            return;
        }
        drop(known);
        let histogram = self.handle.with_label_values(&[self.actor, message]);
        histogram.observe(seconds);
        self.handled.write().push((message, histogram));
    }
}

/// A message on its way to an actor, counted in its mailbox's depth.
pub struct Tracked<M> {
    message: M,
    waiting: Waiting,
}

/// One message's place in a mailbox's depth; dropping it counts the message out.
struct Waiting {
    sent: Instant,
    stats: Arc<MailboxStats>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stats.taken(Instant::now());
    }
}

impl<M> Tracked<M> {
    fn new(message: M, stats: Arc<MailboxStats>) -> Self {
        let sent = Instant::now();
        if stats.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            // The mailbox was empty: the clock of its progress starts now.
            stats.progressed(sent);
        }
        stats.depth.inc();
        Self {
            message,
            waiting: Waiting { sent, stats },
        }
    }
}

impl<M: ActorMessage> Tracked<M> {
    /// Takes the message out, and starts the clock of its handling, which stops when [`Handling`]
    /// is dropped.
    pub fn open(self) -> (M, Handling) {
        let Self { message, waiting } = self;
        let started = Instant::now();
        let waited = started.saturating_duration_since(waiting.sent);
        waiting.stats.wait.observe(waited.as_secs_f64());
        let handling = Handling {
            started,
            message: message.name(),
            stats: Arc::clone(&waiting.stats),
        };
        (message, handling)
    }
}

impl<M: Message> Message for Tracked<M> {
    type Result = M::Result;
}

/// Measures how long a message is being handled.
pub struct Handling {
    started: Instant,
    message: &'static str,
    stats: Arc<MailboxStats>,
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.stats.handled(self.message, self.started.elapsed());
    }
}

/// Why a message was not taken; it is given back.
#[derive(Debug)]
pub enum Rejected<M> {
    /// The mailbox is full.
    Full(M),
    /// The actor has stopped for good.
    Closed(M),
}

impl<M> Rejected<M> {
    /// The message, whatever the reason.
    pub fn into_message(self) -> M {
        match self {
            Rejected::Full(message) | Rejected::Closed(message) => message,
        }
    }
}

/// The address of an actor that runs under the supervisor.
pub struct Mailbox<A: Actor> {
    address: Addr<A>,
    stats: Arc<MailboxStats>,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            stats: Arc::clone(&self.stats),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the tracked way that the bans point to"
)]
impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    /// The way to the same actor for messages of one kind.
    pub fn sender<M>(&self) -> MessageSender<M>
    where
        M: ActorMessage,
        M::Result: Send + MessageResponse<A, Tracked<M>>,
        A: Handler<Tracked<M>>,
        A::Context: ToEnvelope<A, Tracked<M>>,
    {
        MessageSender {
            recipient: self.address.clone().recipient(),
            stats: Arc::clone(&self.stats),
        }
    }

    /// Hands a message over without waiting for an answer.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the actor is gone.
    pub fn try_send<M>(&self, message: M) -> Result<(), Rejected<M>>
    where
        M: ActorMessage,
        M::Result: Send,
        A: Handler<Tracked<M>>,
        A::Context: ToEnvelope<A, Tracked<M>>,
    {
        let tracked = Tracked::new(message, Arc::clone(&self.stats));
        match self.address.try_send(tracked) {
            Ok(()) => Ok(()),
            Err(SendError::Full(tracked)) => Err(Rejected::Full(tracked.message)),
            Err(SendError::Closed(tracked)) => Err(Rejected::Closed(tracked.message)),
        }
    }

    /// Enqueues a message and waits until it has been handled.
    ///
    /// actix enqueues it even when the mailbox is full: a sender is bounded by waiting for the
    /// answer before it sends again, not by the mailbox.
    ///
    /// # Errors
    /// `Closed` when the actor is gone, or crashed over this message.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, MailboxError>
    where
        M: ActorMessage,
        M::Result: Send + MessageResponse<A, Tracked<M>>,
        A: Handler<Tracked<M>>,
        A::Context: ToEnvelope<A, Tracked<M>>,
    {
        let tracked = Tracked::new(message, Arc::clone(&self.stats));
        self.address.send(tracked).await
    }
}

/// The way to an actor for one kind of message; it does not name the actor.
pub struct MessageSender<M>
where
    M: ActorMessage,
    M::Result: Send,
{
    recipient: Recipient<Tracked<M>>,
    stats: Arc<MailboxStats>,
}

impl<M> Clone for MessageSender<M>
where
    M: ActorMessage,
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self {
            recipient: self.recipient.clone(),
            stats: Arc::clone(&self.stats),
        }
    }
}

impl<M> MessageSender<M>
where
    M: ActorMessage,
    M::Result: Send,
{
    /// As [`Mailbox::send`].
    ///
    /// # Errors
    /// `Closed` when the actor is gone, or crashed over this message.
    pub async fn send(&self, message: M) -> Result<M::Result, MailboxError> {
        let tracked = Tracked::new(message, Arc::clone(&self.stats));
        self.recipient.send(tracked).await
    }
}

/// The receiving end, from which [`crate::supervision::supervise`] starts the actor.
pub struct Inbox<A: Actor> {
    pub(super) receiver: AddressReceiver<A>,
    pub(super) actor: &'static str,
}

/// Makes a mailbox for an actor that does not run yet, so that actors that send to each other can
/// be wired in any order. `instance` tells actors of one kind apart.
pub fn mailbox<A: Actor<Context = Context<A>>>(
    actor: &'static str,
    instance: usize,
    capacity: usize,
    metrics: &Metrics,
    health: &HealthBoard,
) -> (Mailbox<A>, Inbox<A>) {
    let (sender, receiver) = channel(capacity);
    let stats = Arc::new(MailboxStats {
        actor,
        instance: format!("{actor}/{instance}"),
        waiting: AtomicI64::new(0),
        epoch: Instant::now(),
        progress: AtomicU64::new(0),
        depth: metrics.mailbox_depth.with_label_values(&[actor]),
        wait: metrics.mailbox_wait.with_label_values(&[actor]),
        handle: metrics.handle.clone(),
        handled: RwLock::default(),
    });
    health.watch(&stats);
    let mailbox = Mailbox {
        address: Addr::new(sender),
        stats,
    };
    (mailbox, Inbox { receiver, actor })
}

//! `BrokerConnection`: keeps one connection to the broker, and makes a new one when it is lost.
//!
//! The reconnect loop is our own: that a consumer's stream ended is a failure, never a quiet stop.
//! Users of the broker watch [`LinkWatch`] for the connection in force.

use super::server_version;
use super::shard_assignment::{AssignShards, NotReady, ShardAssignment};
use super::topology::Topology;
use crate::config::broker::BrokerSettings;
use crate::event::Shards;
use crate::metrics::Metrics;
use crate::supervision::{Backoff, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use futures::future::try_join_all;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Pause before asking again whether the shards may be used.
const WAIT: Duration = Duration::from_secs(1);
/// Shown while the link is not yet of use to publishers.
const CONNECTING: &str = "connecting to the broker";
const DRAINING: &str = "the messages in the shards of the former layout are processed first";
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a message is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    WorkQueue,
    /// The queue of a shard.
    Shard(usize),
    /// The retry queue of a delay.
    Retry(Duration),
    DeadLetters,
}

/// Connections in force, with everything declared on them.
pub struct Link {
    /// For consuming. A connection of its own: under an alarm the broker stops reading from those
    /// that publish, acknowledgements included, and the backlog could not shrink.
    pub consuming: Connection,
    channels: PublishChannels,
    assignment: Option<ShardAssignment>,
    /// A message was returned: from then on the confirms on this link do not tell which one.
    returned: AtomicBool,
    publishing_connection: Connection,
    blocked: watch::Sender<bool>,
    suspect: Notify,
}

/// Channels in confirm mode. Each destination has its own, because lapin gives a returned message to
/// the next confirm on its channel, whichever that is. All publishers share the channel of a
/// destination: hundreds of confirms awaited on one channel measured faster than several channels.
struct PublishChannels {
    work: Channel,
    retry: Channel,
    dead_letters: Channel,
    shards: Vec<Channel>,
}

impl PublishChannels {
    async fn open(connection: &Connection, shards: usize) -> lapin::Result<Self> {
        let confirming = async || {
            let channel = connection.create_channel().await?;
            let options = ConfirmSelectOptions::default();
            channel.confirm_select(options).await?;
            Ok::<_, lapin::Error>(channel)
        };
        Ok(Self {
            work: confirming().await?,
            retry: confirming().await?,
            dead_letters: confirming().await?,
            shards: try_join_all((0..shards).map(|_| confirming())).await?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Channel> {
        [&self.work, &self.retry, &self.dead_letters]
            .into_iter()
            .chain(&self.shards)
    }
}

impl Link {
    /// Whether the broker takes no messages for now.
    pub fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Waits until the broker takes no messages.
    pub async fn blocked(&self) {
        let mut blocked = self.blocked.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = blocked.wait_for(|blocked| *blocked).await;
    }

    /// Waits until the broker takes messages. On a lost link it may wait forever.
    pub async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| !*blocked).await;
    }

    /// The channel of a destination; `None` while nothing may be published to it.
    pub(super) fn channel(&self, destination: Destination) -> Option<&Channel> {
        let channels = &self.channels;
        match destination {
            Destination::WorkQueue | Destination::Shard(_) if self.is_draining() => None,
            Destination::WorkQueue => Some(&channels.work),
            Destination::Shard(shard) => channels.shards.get(shard),
            Destination::Retry(_) => Some(&channels.retry),
            Destination::DeadLetters => Some(&channels.dead_letters),
        }
    }

    /// The shards to consume, if events keep an order or shards are left over from one.
    pub fn assignment(&self) -> Option<&ShardAssignment> {
        self.assignment.as_ref()
    }

    /// The shards in force, if events keep an order.
    pub fn shards(&self) -> Option<Shards> {
        let in_force = self.assignment.as_ref().filter(|of| !of.draining);
        in_force.map(|assignment| assignment.shards)
    }

    /// Whether shards are worked off, and nothing is published meanwhile.
    pub fn is_draining(&self) -> bool {
        self.assignment.as_ref().is_some_and(|of| of.draining)
    }

    /// Notes that a message was returned; from now on no confirm on this link is believed.
    pub fn note_returned(&self) {
        self.returned.store(true, Ordering::Release);
        self.suspect();
    }

    /// Whether a message was returned on this link.
    pub fn has_returned(&self) -> bool {
        self.returned.load(Ordering::Acquire)
    }

    fn is_connected(&self) -> bool {
        self.consuming.status().connected()
            && self.publishing_connection.status().connected()
            && self
                .channels
                .all()
                .all(|channel| channel.status().connected())
    }

    async fn close(&self) {
        // A connection that is gone cannot be closed; it was worth a try.
        let _ = self
            .publishing_connection
            .close(200, "reconnecting".into())
            .await;
        let _ = self.consuming.close(200, "reconnecting".into()).await;
    }

    /// Says that the link does not work, whatever its state: it is closed and made anew.
    pub fn suspect(&self) {
        self.suspect.notify_one();
    }
}

/// The link in force, or `None` while there is none.
pub type LinkWatch = watch::Receiver<Option<Arc<Link>>>;

/// What there is to wait for before there can be a link, beside the broker itself.
pub type ConnectionWaiters = watch::Receiver<Option<String>>;

/// What the actor is wired to.
#[derive(Clone)]
pub struct ConnectionParams {
    pub settings: BrokerSettings,
    pub topology: Topology,
    /// Assigns shards to each new link.
    pub assigner: Arc<dyn AssignShards>,
    pub metrics: Arc<Metrics>,
}

pub struct BrokerConnection {
    params: ConnectionParams,
    link: Arc<watch::Sender<Option<Arc<Link>>>>,
    waiting: Arc<watch::Sender<Option<String>>>,
}

impl BrokerConnection {
    /// The actor, not yet connected, where to watch for its link, and for what it waits for.
    pub fn new(params: ConnectionParams) -> (Self, LinkWatch, ConnectionWaiters) {
        let (link, watch) = watch::channel(None);
        let (waiting, waits_for) = watch::channel(Some(CONNECTING.to_owned()));
        let actor = Self {
            params,
            link: Arc::new(link),
            waiting: Arc::new(waiting),
        };
        (actor, watch, waits_for)
    }
}

impl Actor for BrokerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        let (link, waiting) = (Arc::clone(&self.link), Arc::clone(&self.waiting));
        ctx.spawn(async move { keep_connected(params, &link, &waiting).await }.into_actor(self));
    }
}

impl Supervised for BrokerConnection {
    fn restarting(&mut self, _: &mut Self::Context) {
        // Dropping the link closes the connection, and the broker requeues what it had out.
        self.link.send_replace(None);
        self.params.metrics.broker_connected.set(0);
    }
}

async fn keep_connected(
    params: ConnectionParams,
    link: &watch::Sender<Option<Arc<Link>>>,
    waiting: &watch::Sender<Option<String>>,
) {
    let mut backoff = Backoff::new(params.settings.reconnect_min, params.settings.reconnect_max);
    loop {
        failpoint::hit("broker_connection.connect");
        let connected = connect(&params).await;
        let waited = waiting.borrow().clone();
        waiting.send_replace(match &connected {
            Err(NotReady::Waiting(reason)) => Some(reason.clone()),
            Err(NotReady::Store(error)) => Some(format!("the store: {error}")),
            // What was in the way may be there still.
            Err(NotReady::Broker(_)) => waited.clone().filter(|reason| reason != CONNECTING),
            Ok(link) if link.is_draining() => Some(DRAINING.to_owned()),
            Ok(_) => None,
        });
        match connected {
            Ok(new) => {
                backoff.reset();
                let new = Arc::new(new);
                link.send_replace(Some(Arc::clone(&new)));
                params.metrics.broker_connected.set(1);
                tracing::info!("connected to the broker");
                lost(&new, &*params.assigner).await;
                link.send_replace(None);
                params.metrics.broker_connected.set(0);
                if tokio::time::timeout(Duration::from_secs(1), new.close())
                    .await
                    .is_err()
                {
                    tracing::debug!("the old connection does not close");
                }
            }
            Err(NotReady::Waiting(reason)) => {
                if waited.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "connected to the broker, and waiting");
                }
                tokio::time::sleep(WAIT).await;
                continue;
            }
            Err(NotReady::Store(error)) => {
                tracing::error!(%error, "cannot ask the store for the layout of the shards");
            }
            Err(NotReady::Broker(error)) => {
                tracing::error!(%error, "cannot connect to the broker");
            }
        }
        params.metrics.broker_failures.inc();
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Runs `work` with the connect timeout.
pub(super) async fn in_time<T>(work: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let result = tokio::time::timeout(CONNECT_TIMEOUT, work).await;
    result.unwrap_or_else(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        let reason = format!("the broker does not answer within {seconds} s");
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
    })
}

async fn connect(params: &ConnectionParams) -> Result<Link, NotReady> {
    let (consuming, publishing_connection) = in_time(open(params)).await?;
    let assigning = params.assigner.assign(&consuming, &publishing_connection);
    let assignment = assigning.await?;
    let in_force = assignment.as_ref().filter(|of| !of.draining);
    let shards = in_force.map_or(0, |of| usize::from(of.shards.count));
    let channels = in_time(PublishChannels::open(&publishing_connection, shards)).await?;
    Ok(Link {
        consuming,
        channels,
        assignment,
        returned: AtomicBool::new(false),
        publishing_connection,
        blocked: watch::Sender::new(false),
        suspect: Notify::new(),
    })
}

/// Both connections, with everything declared.
async fn open(params: &ConnectionParams) -> lapin::Result<(Connection, Connection)> {
    let uri = uri(&params.settings)?;
    let version = server_version::ask(&uri, Duration::from_secs(3)).await?;
    tracing::debug!(
        major = version.major,
        minor = version.minor,
        "broker version"
    );
    let named = |name: &str| ConnectionProperties::default().with_connection_name(name.into());
    let consuming = Connection::connect_uri(uri.clone(), named("eclusa consuming")).await?;
    params.topology.declare(&consuming, version).await?;
    let publishing_connection = Connection::connect_uri(uri, named("eclusa publishing")).await?;
    Ok((consuming, publishing_connection))
}

/// Bytes of the largest AMQP frame: what RabbitMQ offers unless it is told otherwise. lapin keeps room for
/// 64 of them a connection. Asked for from the beginning, that room is memory that costs nothing until
/// it is used; when lapin learns the size from the broker it fills all of it with zeros.
const FRAME_MAX: u32 = 131_072;

/// The URI with our heartbeat, and with the default virtual host where the path is a bare slash,
/// which strictly read names a virtual host without a name.
pub(crate) fn uri(settings: &BrokerSettings) -> lapin::Result<AMQPUri> {
    let mut uri: AMQPUri = settings.url.parse().map_err(|reason: String| {
        // The parser's reason may quote the URL, and the URL holds a password.
        drop(reason);
        std::io::Error::other("broker.url cannot be read as an AMQP URI")
    })?;
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    let heartbeat = settings.heartbeat_in_force().as_secs();
    let heartbeat = u16::try_from(heartbeat).unwrap_or(u16::MAX).max(1);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    let asked = uri.query.heartbeat.get_or_insert(heartbeat);
    // In the URL it may be longer than take-over allows, or switched off.
    if settings.is_ordered() && (*asked == 0 || *asked > heartbeat) {
        *asked = heartbeat;
    }
    Ok(uri)
}

/// Completes when the link can no longer be used, and logs the reason.
async fn lost(link: &Link, assigner: &dyn AssignShards) {
    let mut publishing = Box::pin(link.publishing_connection.events_listener());
    let mut consuming = Box::pin(link.consuming.events_listener());
    let kept = assigner.keep(link.assignment.as_ref(), &link.consuming);
    let mut unassigned = std::pin::pin!(kept);
    loop {
        let event = tokio::select! {
            event = publishing.next() => event,
            event = consuming.next() => event,
            reason = &mut unassigned => {
                tracing::warn!(reason, "connecting anew");
                return;
            }
            () = link.suspect.notified() => {
                tracing::warn!("the connection to the broker does not work; connecting anew");
                return;
            }
            // An error that was sent before these listeners listened would be missed.
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if !link.is_connected() {
                    tracing::error!("lost the connection to the broker");
                    return;
                }
                continue;
            }
        };
        match event {
            // Errors of single channels are their users' business.
            Some(Event::Error(error)) if !link.is_connected() => {
                tracing::error!(%error, "lost the connection to the broker");
                return;
            }
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::error!(%reason, "the broker takes no messages for now");
                link.blocked.send_replace(true);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes messages again");
                link.blocked.send_replace(false);
            }
            Some(_) => {}
            None => return,
        }
    }
}

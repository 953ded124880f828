//! `BrokerConnection`: keeps one connection to the broker, and makes a new one when it is lost.
//!
//! The reconnect loop is our own: that a consumer's stream ended is a failure, never a quiet stop.
//! Whoever uses the broker watches [`LinkWatch`] for the connection in force.

use super::layout::{Layout, NotYet, Presence};
use super::message::Rulebook;
use super::server_version::{self, ServerVersion};
use super::shards::Shards;
use super::topology::Topology;
use crate::config::LiveSettings;
use crate::config::broker::BrokerSettings;
use crate::metrics::Metrics;
use crate::supervision::{Backoff, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use futures::future::try_join_all;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, Event};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Pause before looking again whether what there is to wait for is over.
const WAIT: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections in force, with everything declared on them.
pub struct Link {
    /// For consuming. A connection of its own: under an alarm the broker stops reading from those
    /// that publish, acknowledgements included, and the backlog could not shrink.
    pub consuming: Connection,
    /// The channel to the work queue, in confirm mode, shared by all publishers: hundreds awaiting
    /// their confirms on one channel measured faster than several channels.
    pub publishing: Channel,
    /// The channel to the retry queues.
    pub retrying: Channel,
    /// The channel to the dead-letter queue. Each destination has its own, because lapin gives a
    /// returned message to the next confirm on its channel, whosever that is.
    pub burying: Channel,
    /// The channels to the shard queues, by shard, for the same reason.
    pub sharding: Vec<Channel>,
    /// This replica's place among those that share the shards.
    presence: Option<Presence>,
    replicas: AtomicUsize,
    /// A message was returned: which one, the confirms on this link no longer say.
    returned: AtomicBool,
    publishing_connection: Connection,
    blocked: watch::Sender<bool>,
    suspect: Notify,
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

    /// Waits until the broker takes messages. On a link that is lost it may wait for ever.
    pub async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| !*blocked).await;
    }

    /// The shards in force, if events keep an order.
    pub fn shards(&self) -> Option<Shards> {
        self.presence.as_ref().map(|presence| presence.shards)
    }

    /// How many replicas share the shards, this one among them, as of the last look.
    pub fn replicas(&self) -> usize {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    async fn count_replicas(&self) {
        if let Some(presence) = &self.presence {
            let replicas = presence.replicas(&self.consuming).await;
            self.replicas.store(replicas, Ordering::Relaxed);
        }
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
            && [&self.publishing, &self.retrying, &self.burying]
                .into_iter()
                .chain(&self.sharding)
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
pub type Waiting = watch::Receiver<Option<String>>;

/// What the actor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Where and how.
    pub settings: BrokerSettings,
    /// How foreign messages are read when they have to be moved.
    pub live: LiveSettings,
    /// What to declare.
    pub topology: Topology,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct BrokerConnection {
    wiring: Wiring,
    link: Arc<watch::Sender<Option<Arc<Link>>>>,
    waiting: Arc<watch::Sender<Option<String>>>,
}

impl BrokerConnection {
    /// The actor, not yet connected, where to watch for its link, and for what it waits for.
    pub fn new(wiring: Wiring) -> (Self, LinkWatch, Waiting) {
        let (link, watch) = watch::channel(None);
        let (waiting, waits_for) = watch::channel(None);
        let actor = Self {
            wiring,
            link: Arc::new(link),
            waiting: Arc::new(waiting),
        };
        (actor, watch, waits_for)
    }
}

impl Actor for BrokerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let wiring = self.wiring.clone();
        let (link, waiting) = (Arc::clone(&self.link), Arc::clone(&self.waiting));
        ctx.spawn(async move { keep_connected(wiring, &link, &waiting).await }.into_actor(self));
    }
}

impl Supervised for BrokerConnection {
    fn restarting(&mut self, _: &mut Self::Context) {
        // Dropping the link closes the connection, and the broker requeues what it had out.
        self.link.send_replace(None);
        self.wiring.metrics.broker_connected.set(0);
    }
}

async fn keep_connected(
    wiring: Wiring,
    link: &watch::Sender<Option<Arc<Link>>>,
    waiting: &watch::Sender<Option<String>>,
) {
    let mut backoff = Backoff::new(wiring.settings.reconnect_min, wiring.settings.reconnect_max);
    loop {
        failpoint::hit("broker_connection.connect");
        let connected = connect(&wiring).await;
        waiting.send_replace(match &connected {
            Err(NotYet::Waiting(reason)) => Some(reason.clone()),
            _ => None,
        });
        match connected {
            Ok(new) => {
                backoff.reset();
                let new = Arc::new(new);
                link.send_replace(Some(Arc::clone(&new)));
                wiring.metrics.broker_connected.set(1);
                tracing::info!("connected to the broker");
                lost(&new).await;
                link.send_replace(None);
                wiring.metrics.broker_connected.set(0);
                if tokio::time::timeout(Duration::from_secs(1), new.close())
                    .await
                    .is_err()
                {
                    tracing::debug!("the old connection does not close");
                }
            }
            Err(NotYet::Waiting(reason)) => {
                tracing::warn!(reason, "connected to the broker, and waiting");
                tokio::time::sleep(WAIT).await;
                continue;
            }
            Err(NotYet::Broker(error)) => {
                tracing::error!(%error, "cannot connect to the broker");
            }
        }
        wiring.metrics.broker_failures.inc();
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Does it in time or not at all.
async fn in_time<T>(work: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let result = tokio::time::timeout(CONNECT_TIMEOUT, work).await;
    result.unwrap_or_else(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        let reason = format!("the broker does not answer within {seconds} s");
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
    })
}

async fn connect(wiring: &Wiring) -> Result<Link, NotYet> {
    let (consuming, publishing_connection, version) = in_time(open(wiring)).await?;
    let rules = Rulebook::of(&wiring.live.get());
    let layout = Layout {
        topology: &wiring.topology,
        consuming: &consuming,
        publishing: &publishing_connection,
        no_limit: version.is_some_and(ServerVersion::delivery_limit_can_be_switched_off),
        rules: &rules,
        metrics: &wiring.metrics,
    };
    // Without a time limit: it may have many messages to move.
    let presence = layout.establish().await?;
    let shards = presence.as_ref().map(|presence| presence.shards);
    let confirming = async || {
        let channel = publishing_connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok::<_, lapin::Error>(channel)
    };
    let channels = async {
        let sharding = shards.into_iter().flat_map(Shards::all);
        let sharding = try_join_all(sharding.map(|_| confirming())).await?;
        Ok((
            confirming().await?,
            confirming().await?,
            confirming().await?,
            sharding,
        ))
    };
    let (publishing, retrying, burying, sharding) = in_time(channels).await?;
    let link = Link {
        consuming,
        publishing,
        retrying,
        burying,
        sharding,
        presence,
        replicas: AtomicUsize::new(1),
        returned: AtomicBool::new(false),
        publishing_connection,
        blocked: watch::Sender::new(false),
        suspect: Notify::new(),
    };
    link.count_replicas().await;
    Ok(link)
}

/// Both connections, with everything declared.
async fn open(wiring: &Wiring) -> lapin::Result<(Connection, Connection, Option<ServerVersion>)> {
    let uri = uri(&wiring.settings)?;
    let version = match uri.scheme {
        AMQPScheme::AMQP => {
            let (host, port) = (&uri.authority.host, uri.authority.port);
            server_version::ask(host, port, Duration::from_secs(3)).await
        }
        // Over TLS the question would need a TLS stack of its own. Without an answer the queues are
        // declared without a limit argument, which every version takes.
        AMQPScheme::AMQPS => None,
    };
    log_version(version);
    let named = |name: &str| ConnectionProperties::default().with_connection_name(name.into());
    let consuming = Connection::connect_uri(uri.clone(), named("eclusa consuming")).await?;
    wiring.topology.declare(&consuming, version).await?;
    let publishing_connection = Connection::connect_uri(uri, named("eclusa publishing")).await?;
    Ok((consuming, publishing_connection, version))
}

fn log_version(version: Option<ServerVersion>) {
    match version {
        Some(ServerVersion { major, minor }) => tracing::debug!(major, minor, "broker version"),
        None => tracing::debug!("the broker does not say its version"),
    }
}

/// Bytes of the largest AMQP frame: what RabbitMQ offers unless it is told otherwise. lapin keeps room for
/// 64 of them a connection. Asked for from the beginning, that room is memory that costs nothing until
/// it is used; when lapin first hears of the size from the broker it fills all of it with zeros.
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

/// Completes when the link is of no more use, and says why in the log.
async fn lost(link: &Link) {
    let mut publishing = Box::pin(link.publishing_connection.events_listener());
    let mut consuming = Box::pin(link.consuming.events_listener());
    let mut present = link
        .presence
        .as_ref()
        .map(|presence| presence.consumer.clone());
    loop {
        let event = tokio::select! {
            event = publishing.next() => event,
            event = consuming.next() => event,
            () = ended(&mut present) => {
                tracing::error!("the number of shards is no longer in force; connecting anew");
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
                let counted = tokio::time::timeout(CONNECT_TIMEOUT, link.count_replicas());
                if counted.await.is_err() {
                    tracing::error!("the broker does not answer; connecting anew");
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

/// Waits until a consumer that is sent no messages ends; for ever without one.
async fn ended(consumer: &mut Option<Consumer>) {
    match consumer {
        Some(consumer) => while matches!(consumer.next().await, Some(Ok(_))) {},
        None => std::future::pending().await,
    }
}

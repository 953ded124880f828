//! `BrokerConnection`: keeps one connection to the broker, and makes a new one when it is lost.
//!
//! The reconnect loop is our own: that a consumer's stream ended is a failure, never a quiet stop.
//! Whoever uses the broker watches [`LinkWatch`] for the connection in force.

use super::server_version::{self, ServerVersion};
use super::topology::Topology;
use crate::config::broker::BrokerSettings;
use crate::metrics::Metrics;
use crate::supervision::{Backoff, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

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
                .iter()
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

/// What the actor is wired to.
#[derive(Clone)]
pub struct Wiring {
    /// Where and how.
    pub settings: BrokerSettings,
    /// What to declare.
    pub topology: Topology,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
pub struct BrokerConnection {
    wiring: Wiring,
    link: Arc<watch::Sender<Option<Arc<Link>>>>,
}

impl BrokerConnection {
    /// The actor, not yet connected, and where to watch for its link.
    pub fn new(wiring: Wiring) -> (Self, LinkWatch) {
        let (link, watch) = watch::channel(None);
        let link = Arc::new(link);
        (Self { wiring, link }, watch)
    }
}

impl Actor for BrokerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (wiring, link) = (self.wiring.clone(), Arc::clone(&self.link));
        ctx.spawn(async move { keep_connected(wiring, &link).await }.into_actor(self));
    }
}

impl Supervised for BrokerConnection {
    fn restarting(&mut self, _: &mut Self::Context) {
        // Dropping the link closes the connection, and the broker requeues what it had out.
        self.link.send_replace(None);
        self.wiring.metrics.broker_connected.set(0);
    }
}

async fn keep_connected(wiring: Wiring, link: &watch::Sender<Option<Arc<Link>>>) {
    let mut backoff = Backoff::new(wiring.settings.reconnect_min, wiring.settings.reconnect_max);
    loop {
        failpoint::hit("broker_connection.connect");
        match tokio::time::timeout(CONNECT_TIMEOUT, connect(&wiring)).await {
            Ok(Ok(new)) => {
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
            Ok(Err(error)) => tracing::error!(%error, "cannot connect to the broker"),
            Err(_) => tracing::error!(
                seconds = CONNECT_TIMEOUT.as_secs(),
                "the broker does not answer"
            ),
        }
        wiring.metrics.broker_failures.inc();
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

async fn connect(wiring: &Wiring) -> lapin::Result<Link> {
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
    let confirming = async || {
        let channel = publishing_connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok::<_, lapin::Error>(channel)
    };
    let (publishing, retrying, burying) = (
        confirming().await?,
        confirming().await?,
        confirming().await?,
    );
    Ok(Link {
        consuming,
        publishing,
        retrying,
        burying,
        returned: AtomicBool::new(false),
        publishing_connection,
        blocked: watch::Sender::new(false),
        suspect: Notify::new(),
    })
}

fn log_version(version: Option<ServerVersion>) {
    match version {
        Some(ServerVersion { major, minor }) => tracing::debug!(major, minor, "broker version"),
        None => tracing::debug!("the broker does not say its version"),
    }
}

/// The URI with our heartbeat, and with the default virtual host where the path is a bare slash,
/// which strictly read names a virtual host without a name.
fn uri(settings: &BrokerSettings) -> lapin::Result<AMQPUri> {
    let mut uri: AMQPUri = settings.url.parse().map_err(|reason: String| {
        // The parser's reason may quote the URL, and the URL holds a password.
        drop(reason);
        std::io::Error::other("broker.url cannot be read as an AMQP URI")
    })?;
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    let heartbeat = u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX);
    uri.query.heartbeat.get_or_insert(heartbeat);
    Ok(uri)
}

/// Completes when the link is of no more use, and says why in the log.
async fn lost(link: &Link) {
    let mut publishing = Box::pin(link.publishing_connection.events_listener());
    let mut consuming = Box::pin(link.consuming.events_listener());
    loop {
        let event = tokio::select! {
            event = publishing.next() => event,
            event = consuming.next() => event,
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

//! Names of the bench's own on the broker, with a random part, so that nothing of the user's is
//! touched; and their removal.

use crate::broker::connection::uri;
use crate::broker::layout;
use crate::broker::topology::Topology;
use crate::config::Settings;
use crate::retry::policy;
use anyhow::Context as _;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use std::time::Duration;

/// How long the broker may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// The names.
#[derive(Debug, Clone)]
pub struct Queues {
    prefix: String,
}

impl Queues {
    /// Names that nobody else uses.
    pub fn new() -> Self {
        Self {
            prefix: format!("eclusa-bench-{:08x}", rand::random::<u32>()),
        }
    }

    /// The settings with which a server uses them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let name = |part: &str| format!("{}.{part}", self.prefix);
        vec![
            ("broker.queue", self.work()),
            ("broker.exchange", name("exchange")),
            ("broker.dead_letter_exchange", name("dlx")),
            ("broker.dead_letter_queue", name("dlq")),
            ("broker.retry_prefix", name("retry")),
        ]
    }

    /// The work queue of the server under test.
    pub fn work(&self) -> String {
        format!("{}.work", self.prefix)
    }

    /// The queue of the yardsticks.
    pub fn bare(&self) -> String {
        format!("{}.bare", self.prefix)
    }

    /// Deletes everything a server with these settings may have declared, and the yardsticks' queue.
    /// What is not there is passed over.
    ///
    /// # Errors
    /// When the broker is not there, or does not let go of a queue.
    pub async fn remove(&self, settings: &Settings) -> anyhow::Result<()> {
        let topology = Topology::new(&settings.broker, policy::delays(&settings.retry));
        let mut queues = vec![
            self.bare(),
            topology.queue().to_owned(),
            topology.dead_letter_queue().to_owned(),
        ];
        for delay in policy::delays(&settings.retry) {
            queues.push(topology.retry_queue(delay));
        }
        if let Some(shards) = topology.shards() {
            let names = shards.all();
            queues.extend(names.map(|shard| shards.queue(topology.queue(), shard)));
            queues.push(layout::marker(topology.queue()));
            queues.push(layout::change(topology.queue()));
        }
        let connection = connect(settings).await?;
        for queue in queues {
            let channel = connection.create_channel().await?;
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await
                .with_context(|| format!("cannot delete the queue {queue}; delete it by hand"))?;
        }
        let channel = connection.create_channel().await?;
        let broker = &settings.broker;
        for exchange in [&broker.exchange, &broker.dead_letter_exchange] {
            channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await
                .with_context(|| format!("cannot delete the exchange {exchange}"))?;
        }
        Ok(connection.close(200, "done".into()).await?)
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self::new()
    }
}

/// A connection to the broker of the settings.
///
/// # Errors
/// When it is not there, with the URL but not its password.
pub async fn connect(settings: &Settings) -> anyhow::Result<Connection> {
    let place = || {
        let url = crate::config::layers::hide_password(&settings.broker.url);
        format!("cannot connect to the broker {url}")
    };
    let properties = ConnectionProperties::default().with_connection_name("eclusa bench".into());
    let uri = uri(&settings.broker)?;
    tokio::time::timeout(PATIENCE, Connection::connect_uri(uri, properties))
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"))
        .and_then(|connected| Ok(connected?))
        .with_context(place)
}

/// Declares a quorum queue, durable, as Eclusa's work queue is.
///
/// # Errors
/// lapin's.
pub async fn declare(connection: &Connection, name: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    channel
        .queue_declare(name.into(), options, arguments)
        .await?;
    channel.close(200, "declared".into()).await
}

/// Deletes a queue with what is in it.
///
/// # Errors
/// lapin's.
pub async fn delete(connection: &Connection, name: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel
        .queue_delete(name.into(), QueueDeleteOptions::default())
        .await?;
    channel.close(200, "deleted".into()).await
}

/// The broker's version as it introduces itself, such as `3.10`.
pub async fn version(settings: &Settings) -> Option<String> {
    let uri = uri(&settings.broker).ok()?;
    let version = crate::broker::server_version::ask(
        &uri.authority.host,
        uri.authority.port,
        Duration::from_secs(3),
    );
    let version = version.await?;
    Some(format!("{}.{}", version.major, version.minor))
}

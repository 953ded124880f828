//! Names of the bench's own on the broker, with a random part, so that nothing of the user's is
//! touched; and their removal.

use crate::program::Expected;
use anyhow::Context as _;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use std::time::Duration;

/// How long the broker may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a frame of the protocol may hold. lapin fills a buffer of this size for each connection.
const FRAME_MAX: u32 = 131_072;

#[derive(Debug, Clone)]
pub struct Queues {
    prefix: String,
}

impl Queues {
    /// Unique names.
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

    /// Deletes everything that a server declares which expects this, and the yardsticks' queue. What
    /// is not there is passed over.
    ///
    /// # Errors
    /// When the broker is not there, or does not delete a queue.
    pub async fn remove(&self, url: &str, expected: &Expected) -> anyhow::Result<()> {
        let connection = connect(url).await?;
        for queue in expected.queues.iter().chain([&self.bare()]) {
            delete(&connection, queue)
                .await
                .with_context(|| format!("cannot delete the queue {queue}; delete it by hand"))?;
        }
        let channel = connection.create_channel().await?;
        for exchange in &expected.exchanges {
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

/// A connection to a broker.
///
/// # Errors
/// When it is not there, with the host of the URL.
pub async fn connect(url: &str) -> anyhow::Result<Connection> {
    let mut uri: AMQPUri = url.parse().map_err(|_: String| {
        // The parser's reason may quote the URL, and the URL holds a password.
        anyhow::anyhow!("broker.url cannot be read as an AMQP URI")
    })?;
    // A bare slash, which strictly read names a virtual host without a name.
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    let place = format!("{}:{}", uri.authority.host, uri.authority.port);
    let properties = ConnectionProperties::default().with_connection_name("eclusa bench".into());
    tokio::time::timeout(PATIENCE, Connection::connect_uri(uri, properties))
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"))
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("cannot connect to the broker {place}"))
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

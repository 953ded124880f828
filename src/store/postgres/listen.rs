//! News between the processes of one database, by `LISTEN` and `NOTIFY` on a connection of its own: a
//! commit with a `NOTIFY` waits for every other one in the cluster, which no event may.

use super::pool::Pools;
use crate::store::commit_log::Peers;
use crate::store::{ErrorKind, StoreError};
use futures::stream::{Stream, poll_fn};
use futures::{FutureExt, StreamExt, pin_mut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

/// The channel. Processes in another schema of the database are woken for nothing now and then.
const CHANNEL: &str = "eclusa_log";

/// The payload that says that a follower was changed by command.
pub(super) const FOLLOWERS: &str = "followers";

/// Shortest time between two messages of one process.
const PAUSE: Duration = Duration::from_millis(10);

/// Exchanges news until the connection fails.
pub(super) async fn exchange(pools: &Pools, peers: &Peers) -> Result<(), StoreError> {
    let (config, connector, limit) = pools.parts();
    let failed = |error| StoreError::from(error).context("cannot connect");
    match connector {
        Some(connector) => {
            let connecting = timeout(limit, config.connect(connector)).await;
            let connecting = connecting.map_err(|_| StoreError::no_connection_within(limit))?;
            let (client, connection) = connecting.map_err(failed)?;
            run(client, messages(connection), peers).await
        }
        None => {
            let connecting = timeout(limit, config.connect(NoTls)).await;
            let connecting = connecting.map_err(|_| StoreError::no_connection_within(limit))?;
            let (client, connection) = connecting.map_err(failed)?;
            run(client, messages(connection), peers).await
        }
    }
}

type Message = Result<AsyncMessage, tokio_postgres::Error>;

/// What comes on a connection; polling it is what drives the connection.
fn messages<S, T>(mut connection: Connection<S, T>) -> impl Stream<Item = Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(move |context| connection.poll_message(context))
}

async fn run(
    client: Client,
    messages: impl Stream<Item = Message>,
    peers: &Peers,
) -> Result<(), StoreError> {
    // A process need not listen to itself.
    let own = format!("{:016x}", rand::random::<u64>());
    let tell = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        loop {
            peers.tell.notified().await;
            client
                .execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &own])
                .await?;
            tokio::time::sleep(PAUSE).await;
        }
    }
    .fuse();
    pin_mut!(tell, messages);
    loop {
        tokio::select! {
            failed = &mut tell => {
                let failed: Result<(), tokio_postgres::Error> = failed;
                return failed.map_err(StoreError::from);
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(news))) => match news.payload() {
                    FOLLOWERS => peers.commanded.notify_one(),
                    teller if teller != own => peers.told.notify_one(),
                    _ => {}
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(StoreError::new(ErrorKind::Outage, "the connection is closed")),
            },
        }
    }
}

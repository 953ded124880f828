//! A connection that belongs to no pool.

use super::options::PostgresOptions;
use super::tls;
use crate::store::{ErrorKind, StoreError};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::{Client, NoTls};

/// A connection of the caller's own, with TLS as the URL says: the client, and the future that
/// drives it, which must be polled beside.
///
/// # Errors
/// As for the pools' connections.
pub async fn connect_alone(
    options: &PostgresOptions,
) -> Result<(Client, BoxFuture<'static, ()>), StoreError> {
    let config = options.config()?;
    let failed = |error| StoreError::from(error).context("cannot connect");
    let connecting = async {
        match tls::connector(&config)? {
            Some(connector) => {
                let (client, connection) = config.connect(connector).await.map_err(failed)?;
                // What the connection fails with, the client's next question fails with too.
                Ok((client, connection.map(drop).boxed()))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                Ok((client, connection.map(drop).boxed()))
            }
        }
    };
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(StoreError::new(
            ErrorKind::Outage,
            format!("no connection within {:?}", options.connect_timeout),
        )),
    }
}

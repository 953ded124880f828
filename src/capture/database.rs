//! Where the captured PostgreSQL is, and sessions whose texts of values do not depend on its settings.

use super::replication::ReplicationConnection;
use super::{CaptureError, CaptureFault, Lsn, ReplicationStream};
use crate::store::ErrorKind;
use crate::store::postgres::{PostgresOptions, connector};
use std::fmt;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The settings under which PostgreSQL writes values as texts, and refuses to read a table of which policies hide rows.
/// They stand behind those of the URL, the role and the database, and so win.
const TEXTS: &str = "-c datestyle=ISO -c intervalstyle=iso_8601 -c timezone=UTC -c extra_float_digits=1 \
                     -c bytea_output=hex -c lc_monetary=C -c search_path=pg_catalog -c xmloption=content \
                     -c row_security=off";

/// The PostgreSQL that a capture reads.
#[derive(Clone)]
pub struct CaptureDatabase {
    config: Config,
    connector: Option<MakeRustlsConnect>,
    connect_timeout: Duration,
}

impl CaptureDatabase {
    /// The database of this URL, as in `store.url`.
    ///
    /// # Errors
    /// The URL cannot be read or lacks what is needed, or TLS cannot be set up.
    pub fn new(url: &str, connect_timeout: Duration) -> Result<Self, CaptureError> {
        let options = PostgresOptions {
            connect_timeout,
            ..PostgresOptions::new(url)
        };
        let mut config = options.base_config()?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err(CaptureError::operator(
                CaptureFault::Other,
                "the URL of the captured database names no user; write postgres://user@host/name",
            ));
        }
        if config.get_channel_binding() == ChannelBinding::Require {
            return Err(CaptureError::operator(
                CaptureFault::Other,
                "channel_binding=require is not supported for captures; sslmode=require checks the server's \
                 certificate",
            ));
        }
        let texts = match config.get_options() {
            Some(options) => format!("{options} {TEXTS}"),
            None => TEXTS.to_owned(),
        };
        config.options(texts).application_name("eclusa capture");
        Ok(Self {
            connector: connector(&config)?,
            config,
            connect_timeout,
        })
    }

    /// A session for SQL: catalog and snapshots. It ends with the client.
    ///
    /// # Errors
    /// No connection could be made.
    pub async fn connect(&self) -> Result<Client, CaptureError> {
        // The driver ends with the client; its errors are those of the client's requests.
        match self.connector.clone() {
            Some(connector) => {
                let (client, connection) = self.config.connect(connector).await?;
                drop(Handle::current().spawn(connection));
                Ok(client)
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                drop(Handle::current().spawn(connection));
                Ok(client)
            }
        }
    }

    /// A session for commands of replication.
    ///
    /// # Errors
    /// No connection could be made.
    pub async fn connect_replication(&self) -> Result<ReplicationConnection, CaptureError> {
        let connecting = ReplicationConnection::connect(
            &self.config,
            self.connector.as_ref(),
            self.connect_timeout,
        );
        connecting.await
    }

    /// Starts to read `slot` from `start`, or from where the slot is.
    ///
    /// After a crash of the server the slot can be behind what was confirmed, so name the place from which on changes are
    /// wanted. The server goes on behind the slot's confirmed position if `start` is older. That is a gap, unless everything
    /// up to there is durable here: compare before.
    ///
    /// # Errors
    /// No connection could be made, or the server refuses; see [`CaptureFault`].
    pub async fn open(
        &self,
        slot: &str,
        publication: &str,
        start: Option<Lsn>,
    ) -> Result<ReplicationStream, CaptureError> {
        let connection = self.connect_replication().await?;
        ReplicationStream::start(connection, slot, publication, start).await
    }

    /// The name of the database.
    ///
    /// # Errors
    /// The URL names neither database nor user.
    pub fn name(&self) -> Result<&str, CaptureError> {
        let name = self.config.get_dbname().or(self.config.get_user());
        name.ok_or_else(|| CaptureError::new(ErrorKind::Operator, "the URL names no database"))
    }
}

impl fmt::Debug for CaptureDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureDatabase")
            .field("hosts", &self.config.get_hosts())
            .finish_non_exhaustive()
    }
}

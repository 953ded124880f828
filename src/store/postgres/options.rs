//! Where PostgreSQL is, and how patient to be with it.

use crate::store::{ErrorKind, StoreError};
use std::fmt;
use std::time::Duration;
use tokio_postgres::Config;

/// Where PostgreSQL is, and how patient to be with it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/name?sslmode=...`; never shown in logs or errors.
    pub url: String,
    /// Connections that write. On a small machine two already saturate PostgreSQL.
    pub write_connections: usize,
    /// Connections that answer queries.
    pub read_connections: usize,
    /// Connections on which followers read and apply the log, and so how many may do so at a time.
    pub follower_connections: usize,
    /// Connections on which subscribers read the log.
    pub topic_connections: usize,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long to wait for a free connection before it counts as an outage.
    pub acquire_timeout: Duration,
    /// How long a statement may run before the server ends it.
    pub statement_timeout: Duration,
    /// How long a lease lasts: a transaction under one that says nothing for this long is ended.
    pub lease_ttl: Duration,
}

impl PostgresOptions {
    /// Options with the defaults for everything but the URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            write_connections: 2,
            read_connections: 4,
            follower_connections: 4,
            topic_connections: 3,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lease_ttl: Duration::from_secs(15),
        }
    }

    /// How long an answer may take before the connection counts as dead. Longer than the server's
    /// own limit, so that this one strikes only when the server or the network is gone.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.statement_timeout
            .saturating_add(Duration::from_secs(5))
    }

    /// The client's configuration for the log's connections.
    pub(super) fn config(&self) -> Result<Config, StoreError> {
        let mut config = self.base_config()?;
        // Compiling a query takes longer than any of ours runs.
        let limit = format!(
            "-c jit=off -c statement_timeout={}",
            self.statement_timeout.as_millis()
        );
        let options = match config.get_options() {
            Some(options) => format!("{options} {limit}"),
            None => limit,
        };
        config.options(options);
        Ok(config)
    }

    /// The same without a limit on statements, for migrations.
    ///
    /// # Errors
    /// The URL cannot be read. What it holds is not repeated: a password with an unescaped `@` or
    /// `?` would show up as a host or an option.
    pub(crate) fn base_config(&self) -> Result<Config, StoreError> {
        let mut url = self.url.clone();
        for mode in ["verify-full", "verify-ca"] {
            url = url.replace(&format!("sslmode={mode}"), "sslmode=require");
        }
        let Ok(mut config) = url.parse::<Config>() else {
            return Err(StoreError::new(
                ErrorKind::Operator,
                "the database URL cannot be read; it should look like \
                 postgres://user:password@host:5432/name?sslmode=prefer, with special characters \
                 in user and password percent-encoded",
            ));
        };
        config
            .application_name("eclusa")
            .connect_timeout(self.connect_timeout)
            // A network cut shows within half a minute, also while nothing is being sent.
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        Ok(config)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("url", &"...")
            .field("write_connections", &self.write_connections)
            .field("read_connections", &self.read_connections)
            .field("follower_connections", &self.follower_connections)
            .field("topic_connections", &self.topic_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("lease_ttl", &self.lease_ttl)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::SslMode;

    #[test]
    fn an_unreadable_url_does_not_leak() {
        for url in [
            "postgres://me:hunter2@db:port/eclusa",
            "hunter2",
            "postgres://me:p@db/eclusa?hunter2=1",
        ] {
            let options = PostgresOptions::new(url);
            let error = options.config().map(|_| ()).unwrap_err();
            let shown = format!("{error} {error:?} {options:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(error.kind(), ErrorKind::Operator);
        }
    }

    #[test]
    fn the_limit_joins_options_of_the_url() {
        let url = "postgres://u@h/d?options=-c%20work_mem%3D8MB&sslmode=verify-full";
        let config = PostgresOptions::new(url).config().unwrap();
        let options = config.get_options().unwrap();
        assert_eq!(
            options,
            "-c work_mem=8MB -c jit=off -c statement_timeout=30000"
        );
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
    }
}

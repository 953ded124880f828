//! Connections: writers through tokio-postgres, whose errors carry the SQLSTATE that decides what
//! becomes of a batch; readers through diesel.

use super::options::PostgresOptions;
use super::tls;
use crate::store::{ErrorKind, StoreError};
use deadpool::Runtime;
use deadpool::managed::{PoolError, TimeoutType};
use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool as diesel_pool;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as DieselPoolError, RecyclingMethod,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections for leases and the work under them: one renews while the other works.
const CHORES: usize = 2;

/// The pools of writers and readers. Connections are made on demand, so having this says nothing
/// about the server being there.
pub(super) struct Pools {
    writers: deadpool_postgres::Pool,
    chores: deadpool_postgres::Pool,
    readers: diesel_pool::Pool<AsyncPgConnection>,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Pools {
    /// Lays out both pools.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let config = options.config()?;
        let connector = tls::connector(&config)?;
        Ok(Self {
            writers: writers(
                options,
                options.write_connections,
                &config,
                connector.clone(),
            )?,
            chores: writers(options, CHORES, &chores_config(&config), connector.clone())?,
            readers: readers(options, config, connector)?,
            acquire_timeout: options.acquire_timeout,
            connect_timeout: options.connect_timeout,
            answer_timeout: options.answer_timeout(),
        })
    }

    /// Closes the connections that nobody uses now.
    pub(super) fn close_idle(&self) {
        self.writers.retain(|_, _| false);
        self.readers.retain(|_, _| false);
    }

    /// Does `work` on a writing connection. One that does not answer in time is thrown away: what
    /// was sent on it may still be under way.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut deadpool_postgres::Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.on(&self.writers, work).await
    }

    /// The same on a connection that no event waits for, and that events do not keep waiting.
    pub(super) async fn chore<T>(
        &self,
        work: impl AsyncFnOnce(&mut deadpool_postgres::Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.on(&self.chores, work).await
    }

    async fn on<T>(
        &self,
        pool: &deadpool_postgres::Pool,
        work: impl AsyncFnOnce(&mut deadpool_postgres::Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut client = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => StoreError::from(error).context("cannot connect"),
            other => self.unavailable(&other),
        })?;
        let Ok(result) = timeout(self.answer_timeout, work(&mut client)).await else {
            drop(deadpool::managed::Object::take(client));
            return Err(StoreError::no_answer_within(self.answer_timeout));
        };
        // The server does not know a statement that this client has prepared: behind a pooler, or
        // after a change of the schema.
        let stale = |error: &StoreError| matches!(error.sqlstate(), Some("26000" | "0A000"));
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Outage || stale(error)) {
            // The client may not have noticed yet that its connection is gone; the next one to use
            // it would be the one to find out.
            drop(deadpool::managed::Object::take(client));
        }
        result
    }

    /// Does `work` on a reading connection, in the same way.
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = self.readers.get().await.map_err(|error| match error {
            PoolError::Backend(DieselPoolError::ConnectionError(error)) => connect_error(error),
            PoolError::Backend(DieselPoolError::QueryError(error)) => {
                StoreError::postgres_read(error)
            }
            other => self.unavailable(&other),
        })?;
        let Ok(result) = timeout(self.answer_timeout, work(&mut connection)).await else {
            drop(deadpool::managed::Object::take(connection));
            return Err(StoreError::no_answer_within(self.answer_timeout));
        };
        result.map_err(StoreError::postgres_read)
    }

    fn unavailable<E>(&self, error: &PoolError<E>) -> StoreError {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => {
                StoreError::no_connection_within(self.acquire_timeout)
            }
            PoolError::Timeout(_) => StoreError::no_connection_within(self.connect_timeout),
            _ => StoreError::new(ErrorKind::Outage, "the connections are closed"),
        }
    }
}

/// Makes one connection outside the pools, for migrations.
pub(super) async fn connect(
    config: &Config,
    connector: Option<MakeRustlsConnect>,
) -> diesel::ConnectionResult<AsyncPgConnection> {
    let failed = |error| ConnectionError::CouldntSetupConfiguration(wrap(error));
    match connector {
        Some(connector) => {
            let (client, connection) = config.connect(connector).await.map_err(failed)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
    }
}

/// Carries a connection error through diesel, which has no place for it, so that
/// [`connect_error`] can sort it by what it is.
fn wrap(error: tokio_postgres::Error) -> diesel::result::Error {
    diesel::result::Error::QueryBuilderError(Box::new(StoreError::from(error)))
}

/// What making a connection failed with.
pub(super) fn connect_error(error: ConnectionError) -> StoreError {
    let error = match error {
        ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(
            carried,
        )) => match carried.downcast::<StoreError>() {
            Ok(sorted) => *sorted,
            Err(other) => StoreError::new(ErrorKind::Transient, format!("PostgreSQL: {other}")),
        },
        ConnectionError::CouldntSetupConfiguration(error) => StoreError::postgres_read(error),
        other => StoreError::new(ErrorKind::Outage, format!("PostgreSQL: {other}")),
    };
    error.context("cannot connect")
}

/// A process that stops in the middle of a transaction must not keep the lease's row, or the right
/// to make partitions, for as long as its machine hangs.
fn chores_config(config: &Config) -> Config {
    let mut config = config.clone();
    let options = config.get_options().unwrap_or_default();
    let options = format!("{options} -c idle_in_transaction_session_timeout=10s");
    config.options(options);
    config
}

fn writers(
    options: &PostgresOptions,
    size: usize,
    config: &Config,
    connector: Option<MakeRustlsConnect>,
) -> Result<deadpool_postgres::Pool, StoreError> {
    let manager_config = deadpool_postgres::ManagerConfig {
        recycling_method: deadpool_postgres::RecyclingMethod::Fast,
    };
    let manager = match connector {
        Some(connector) => {
            deadpool_postgres::Manager::from_config(config.clone(), connector, manager_config)
        }
        None => deadpool_postgres::Manager::from_config(config.clone(), NoTls, manager_config),
    };
    deadpool_postgres::Pool::builder(manager)
        .max_size(size.max(1))
        .wait_timeout(Some(options.acquire_timeout))
        .create_timeout(Some(options.connect_timeout))
        .recycle_timeout(Some(options.connect_timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::new(ErrorKind::Operator, error.to_string()))
}

fn readers(
    options: &PostgresOptions,
    config: Config,
    connector: Option<MakeRustlsConnect>,
) -> Result<diesel_pool::Pool<AsyncPgConnection>, StoreError> {
    let mut manager_config = ManagerConfig::<AsyncPgConnection>::default();
    // A closed connection is noticed without asking the server.
    manager_config.recycling_method = RecyclingMethod::Fast;
    manager_config.custom_setup = Box::new(
        move |_url: &str| -> BoxFuture<'_, diesel::ConnectionResult<AsyncPgConnection>> {
            let (config, connector) = (config.clone(), connector.clone());
            async move { connect(&config, connector).await }.boxed()
        },
    );
    // The URL stays in the client's configuration, where nothing prints it.
    let manager = AsyncDieselConnectionManager::new_with_config("", manager_config);
    diesel_pool::Pool::builder(manager)
        .max_size(options.read_connections.max(1))
        .wait_timeout(Some(options.acquire_timeout))
        .create_timeout(Some(options.connect_timeout))
        .recycle_timeout(Some(options.connect_timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::new(ErrorKind::Operator, error.to_string()))
}

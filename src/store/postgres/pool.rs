//! Connections: writers through tokio-postgres, whose errors carry the SQLSTATE that decides what
//! becomes of a batch; readers through diesel.

use super::by_index;
use super::options::PostgresOptions;
use super::tls;
use crate::store::{ErrorKind, StoreError};
use deadpool::Runtime;
use deadpool::managed::{Manager, Object, Pool, PoolError, TimeoutType};
use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool as diesel_pool;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as DieselPoolError, RecyclingMethod,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::{CancelToken, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections for leases and the work under them: one renews while the other works.
const MAINTENANCE: usize = 2;

/// Readers beside `read_connections`: counting the dead letters for `/metrics` and measuring the streams may take long,
/// and must leave all of those to queries and health checks.
const COUNTING: usize = 2;

/// Connections for what must not wait for a follower at work: the numbering of commits, the followers'
/// records and commands to them.
const SEQUENCING: usize = 2;

/// Connections for the calls of collectors, none of which is held while a collector waits.
const COLLECTING: usize = 4;

/// How long a call of a collector waits for the lock of its place.
const LOCKED: Duration = Duration::from_secs(2);

/// How long the server may take to be told that a query was abandoned.
const CANCEL: Duration = Duration::from_secs(1);

/// The pools of connections. Connections are made on demand, so having this says nothing about the
/// server being there.
pub(super) struct Pools {
    writers: deadpool_postgres::Pool,
    maintenance: deadpool_postgres::Pool,
    readers: diesel_pool::Pool<AsyncPgConnection>,
    followers: diesel_pool::Pool<AsyncPgConnection>,
    sequencing: diesel_pool::Pool<AsyncPgConnection>,
    collecting: diesel_pool::Pool<AsyncPgConnection>,
    topics: diesel_pool::Pool<AsyncPgConnection>,
    config: Config,
    connector: Option<MakeRustlsConnect>,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Pools {
    /// Sets up the pools without connecting.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let config = options.config()?;
        let connector = tls::connector(&config)?;
        let maintenance = maintenance_config(&config, options.lease_ttl);
        Ok(Self {
            writers: writers(
                options,
                options.write_connections,
                &config,
                connector.clone(),
            )?,
            maintenance: writers(options, MAINTENANCE, &maintenance, connector.clone())?,
            readers: readers(
                options,
                options.read_connections.max(1) + COUNTING,
                config.clone(),
                connector.clone(),
            )?,
            followers: readers(
                options,
                options.follower_connections.max(1),
                followers_config(&maintenance),
                connector.clone(),
            )?,
            sequencing: readers(
                options,
                SEQUENCING,
                followers_config(&maintenance),
                connector.clone(),
            )?,
            collecting: readers(
                options,
                COLLECTING,
                collecting_config(&maintenance),
                connector.clone(),
            )?,
            topics: readers(
                options,
                options.topic_connections.max(1),
                followers_config(&config),
                connector.clone(),
            )?,
            config,
            connector,
            acquire_timeout: options.acquire_timeout,
            connect_timeout: options.connect_timeout,
            answer_timeout: options.answer_timeout(),
        })
    }

    /// How long a caller waits for a connection at most.
    pub(super) fn acquire_timeout(&self) -> Duration {
        self.acquire_timeout
    }

    /// Closes the connections that are not in use.
    pub(super) fn close_idle(&self) {
        self.writers.retain(|_, _| false);
        self.readers.retain(|_, _| false);
        self.followers.retain(|_, _| false);
        self.sequencing.retain(|_, _| false);
        self.collecting.retain(|_, _| false);
        self.topics.retain(|_, _| false);
    }

    /// Does `work` on a writing connection.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut deadpool_postgres::Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.lend(&self.writers, cannot_connect, work).await
    }

    /// The same on a connection that no event waits for, and that events do not keep waiting.
    pub(super) async fn maintain<T>(
        &self,
        work: impl AsyncFnOnce(&mut deadpool_postgres::Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.lend(&self.maintenance, cannot_connect, work).await
    }

    /// Does `work` on a reading connection.
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        self.query(&self.readers, work).await
    }

    /// Does `work` of short duration on the log and the followers' records.
    pub(super) async fn sequence<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        self.query(&self.sequencing, work).await
    }

    /// Does the `work` of a collector's call.
    pub(super) async fn collect<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        self.query(&self.collecting, work).await
    }

    /// Does `work` for subscribers.
    pub(super) async fn topic<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        self.query(&self.topics, work).await
    }

    /// Does a follower's `work`, which may take its time.
    pub(super) async fn follow<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.lend(&self.followers, cannot_connect_diesel, async |connection| {
            work(&mut *connection).await
        })
        .await
    }

    /// Does `work` that fails as diesel's queries do on a connection of a pool.
    async fn query<T>(
        &self,
        pool: &diesel_pool::Pool<AsyncPgConnection>,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, diesel::result::Error>,
    ) -> Result<T, StoreError> {
        self.lend(pool, cannot_connect_diesel, async |connection| {
            work(&mut *connection)
                .await
                .map_err(StoreError::postgres_read)
        })
        .await
    }

    /// What a connection outside the pools is made with.
    pub(super) fn parts(&self) -> (&Config, Option<MakeRustlsConnect>, Duration) {
        (&self.config, self.connector.clone(), self.connect_timeout)
    }

    /// Does `work` on a connection of the pool. The connection returns to the pool only after an
    /// answer: one that does not answer in time, or whose caller stops waiting, is closed.
    async fn lend<M: Manager<Type: Cancel> + 'static, T>(
        &self,
        pool: &Pool<M>,
        cannot_connect: impl Fn(M::Error) -> StoreError,
        work: impl AsyncFnOnce(&mut Object<M>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let object = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => cannot_connect(error),
            other => self.unavailable(&other),
        })?;
        let mut lent = Lent {
            object: None,
            connector: &self.connector,
        };
        let working = work(lent.object.insert(object));
        let Ok(result) = timeout(self.answer_timeout, working).await else {
            return Err(StoreError::no_answer_within(self.answer_timeout));
        };
        let object = lent.object.take();
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Outage) {
            // The client may not have noticed yet that its connection is gone; the next one to use
            // it would be the one to find out.
            drop(object.map(Object::take));
        }
        result
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

fn cannot_connect_diesel(error: DieselPoolError) -> StoreError {
    match error {
        DieselPoolError::ConnectionError(error) => connect_error(error),
        DieselPoolError::QueryError(error) => StoreError::postgres_read(error),
    }
}

fn cannot_connect(error: tokio_postgres::Error) -> StoreError {
    StoreError::from(error).context("cannot connect")
}

/// A connection whose query can be cancelled.
trait Cancel {
    fn cancel_token(&self) -> CancelToken;
}

impl Cancel for deadpool_postgres::ClientWrapper {
    fn cancel_token(&self) -> CancelToken {
        tokio_postgres::Client::cancel_token(self)
    }
}

impl Cancel for AsyncPgConnection {
    fn cancel_token(&self) -> CancelToken {
        AsyncPgConnection::cancel_token(self)
    }
}

/// A connection in use. Dropped with it, because the caller stopped waiting, the connection is
/// closed and what runs on it is cancelled: in the pool it would keep the next caller waiting, and
/// in the server it would hold its locks. Until the server has been told, it keeps its place in the
/// pool, so abandoned queries are never more than the pool has connections.
struct Lent<'a, M: Manager<Type: Cancel> + 'static> {
    object: Option<Object<M>>,
    connector: &'a Option<MakeRustlsConnect>,
}

impl<M: Manager<Type: Cancel> + 'static> Drop for Lent<'_, M> {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else {
            return;
        };
        let (token, connector) = (object.cancel_token(), self.connector.clone());
        let close = async move {
            let cancel = async {
                match connector {
                    Some(connector) => token.cancel_query(connector).await,
                    None => token.cancel_query(NoTls).await,
                }
            };
            // A server that cannot be told ends the query by its own limit.
            let _ = timeout(CANCEL, cancel).await;
            drop(Object::take(object));
        };
        // Without a runtime the process is at its end, and all connections with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(close);
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
fn maintenance_config(config: &Config, lease_ttl: Duration) -> Config {
    const IDLE: Duration = Duration::from_secs(10);
    let mut config = config.clone();
    let options = config.get_options().unwrap_or_default();
    let limit = lease_ttl.min(IDLE).as_millis();
    let options = format!("{options} -c idle_in_transaction_session_timeout={limit}");
    config.options(options);
    config
}

/// Collectors' statements go by indexes. The process that has the lock of a place may be paused.
fn collecting_config(config: &Config) -> Config {
    let mut config = config.clone();
    let options = config.get_options().unwrap_or_default();
    let options = format!(
        "{options} {} -c lock_timeout={} -c default_transaction_isolation=read\\ committed",
        by_index::options(),
        LOCKED.as_millis()
    );
    config.options(options);
    config
}

/// The generic plan of a read of the log, which a prepared statement gets from its sixth execution on,
/// locks every partition. The numbering sees what was committed while it waited for its lock.
fn followers_config(config: &Config) -> Config {
    let mut config = config.clone();
    let options = config.get_options().unwrap_or_default();
    let options = format!(
        "{options} -c plan_cache_mode=force_custom_plan \
         -c default_transaction_isolation=read\\ committed"
    );
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
    size: usize,
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
        .max_size(size)
        .wait_timeout(Some(options.acquire_timeout))
        .create_timeout(Some(options.connect_timeout))
        .recycle_timeout(Some(options.connect_timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::new(ErrorKind::Operator, error.to_string()))
}

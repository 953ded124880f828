//! Opens the store of the mode, and waits for a database that is not available yet.

use crate::config::{Mode, Settings};
use crate::store::postgres;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{ErrorKind, ShardLayoutStore, Store, StoreError};
use crate::supervision::Backoff;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The layouts of shards, which only PostgreSQL has.
type Layouts = Option<Arc<dyn ShardLayoutStore>>;

/// Applies migrations if the settings say so, checks the schema, and opens the store.
///
/// # Errors
/// Why the store cannot be opened; after `store.startup_wait` when the database is unavailable.
pub async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    Ok(open_with_layouts(settings).await?.0)
}

/// As [`open`], with the layouts of shards.
///
/// # Errors
/// As [`open`].
pub async fn open_with_layouts(settings: &Settings) -> anyhow::Result<(Arc<dyn Store>, Layouts)> {
    if settings.store.migrate {
        migrate(settings).await?;
    }
    match settings.mode() {
        Mode::Embedded | Mode::Auto => {
            let store = SqliteStore::open(&SqliteOptions::new(settings.sqlite_file()))
                .await
                .context("cannot open the SQLite file")?;
            Ok((Arc::new(store), None))
        }
        Mode::Database | Mode::Full => {
            let store = retry_outages(settings, || async {
                PostgresStore::connect(&postgres_options(settings)).await
            })
            .await?;
            let store = Arc::new(store);
            Ok((store.clone(), Some(store)))
        }
    }
}

/// Applies all pending migrations and returns their names.
///
/// # Errors
/// As [`open`].
pub async fn migrate(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let applied = match settings.mode() {
        Mode::Embedded | Mode::Auto => {
            std::fs::create_dir_all(&settings.data_dir).with_context(|| {
                format!(
                    "cannot create the directory {}",
                    settings.data_dir.display()
                )
            })?;
            sqlite::migrate(settings.sqlite_file())
                .await
                .context("cannot migrate the SQLite file")?
        }
        Mode::Database | Mode::Full => {
            retry_outages(settings, || async {
                postgres::migrate(&postgres_options(settings)).await
            })
            .await?
        }
    };
    for migration in &applied {
        tracing::info!(migration, "migration applied");
    }
    Ok(applied)
}

fn postgres_options(settings: &Settings) -> PostgresOptions {
    PostgresOptions {
        write_connections: settings.batch.writers,
        read_connections: settings.store.read_connections,
        follower_connections: settings.followers.connections,
        topic_connections: settings.topics.readers + 1,
        lease_ttl: settings.store.lease_ttl,
        acquire_timeout: settings.store.acquire_timeout,
        statement_timeout: settings.store.statement_timeout,
        ..PostgresOptions::new(&settings.store.url)
    }
}

/// Retries while the database is unavailable: in a compose file all services start at once.
async fn retry_outages<T, F: Future<Output = Result<T, StoreError>>>(
    settings: &Settings,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error)
                if error.kind() == ErrorKind::Outage
                    && began.elapsed() < settings.store.startup_wait =>
            {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot use the database {}",
                        crate::config::layers::hide_password(&settings.store.url)
                    )
                });
            }
        }
    }
}

//! Opening the store the mode asks for, waiting for a database that is not up yet.

use crate::config::{Mode, Settings};
use crate::store::postgres::{self, PostgresOptions, PostgresStore};
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
use crate::store::{ErrorKind, Store, StoreError};
use crate::supervision::Backoff;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Migrates if the settings say so, checks the schema, and opens the store.
///
/// # Errors
/// In words, after `store.startup_wait` when the database is away.
pub async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if settings.store.migrate {
        migrate(settings).await?;
    }
    match settings.mode() {
        Mode::Embedded | Mode::Auto => {
            let store = SqliteStore::open(&SqliteOptions::new(settings.sqlite_file()))
                .await
                .context("cannot open the SQLite file")?;
            Ok(Arc::new(store))
        }
        Mode::Database | Mode::Full => {
            let store = patiently(settings, || async {
                PostgresStore::connect(&postgres_options(settings)).await
            })
            .await?;
            Ok(Arc::new(store))
        }
    }
}

/// Brings the tables up to date and says which migrations that took.
///
/// # Errors
/// As [`open`].
pub async fn migrate(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let applied = match settings.mode() {
        Mode::Embedded | Mode::Auto => {
            std::fs::create_dir_all(&settings.data_dir).with_context(|| {
                format!("cannot make the folder {}", settings.data_dir.display())
            })?;
            sqlite::migrate(settings.sqlite_file())
                .await
                .context("cannot migrate the SQLite file")?
        }
        Mode::Database | Mode::Full => {
            patiently(settings, || async {
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
        acquire_timeout: settings.store.acquire_timeout,
        statement_timeout: settings.store.statement_timeout,
        ..PostgresOptions::new(&settings.store.url)
    }
}

/// Tries again while the database is merely away: in a compose file everything starts at once.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
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

//! Bringing the schema up to this release, safely for several processes that start at once.

use super::connection::{Purpose, SqliteFailure, open};
use super::schema::eclusa_schema;
use crate::store::compatibility::Schema;
use crate::store::{ErrorKind, StoreError};
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// How often to try again while another process holds the file. Switching to the write-ahead log
/// does not wait for locks as everything else does.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Makes the file and the folders above it if they are not there, runs the migrations that are
/// missing, all in one transaction, and names them.
///
/// # Errors
/// `Operator` if the file cannot be made or was migrated by a newer release.
pub async fn migrate(path: impl Into<PathBuf>) -> Result<Vec<String>, StoreError> {
    let path = path.into();
    let run = tokio::task::spawn_blocking(move || {
        let mut tries = 0;
        loop {
            match run(&path) {
                Err(error) if error.kind() == ErrorKind::Transient && tries < TRIES => {
                    tries = tries.saturating_add(1);
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    });
    run.await
        .unwrap_or_else(|error| Err(failed(Box::new(error))))
}

fn run(path: &Path) -> Result<Vec<String>, StoreError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            let message = format!("cannot make the folder {}: {error}", folder.display());
            StoreError::new(ErrorKind::Operator, message).with_source(error)
        })?;
    }
    let mut connection = open(path, Purpose::Migrate)?;
    let migrated = connection.immediate_transaction(|connection| -> Result<_, SqliteFailure> {
        if let Some(schema) = read_schema(connection)? {
            schema.check_not_newer()?;
        }
        let applied = connection
            .run_pending_migrations(MIGRATIONS)
            .map_err(failed)?;
        Ok(applied.iter().map(ToString::to_string).collect())
    });
    migrated.map_err(|SqliteFailure(error)| error)
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    let error = match error.downcast::<diesel::result::Error>() {
        Ok(error) => StoreError::sqlite(*error),
        Err(error) => StoreError::new(ErrorKind::Operator, error.to_string()),
    };
    error.context("a migration failed")
}

/// What the database says about its schema; `None` if there is none.
pub(super) fn read_schema(
    connection: &mut SqliteConnection,
) -> Result<Option<Schema>, diesel::result::Error> {
    let exists = diesel::dsl::sql::<diesel::sql_types::Bool>(
        "EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'eclusa_schema')",
    );
    if !diesel::select(exists).get_result::<bool>(connection)? {
        return Ok(None);
    }
    eclusa_schema::table
        .select((eclusa_schema::version, eclusa_schema::oldest_compatible))
        .first(connection)
        .optional()
}

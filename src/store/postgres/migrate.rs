//! Bringing the schema up to this release, safely for several processes that start at once.

use super::options::PostgresOptions;
use super::pool::{connect, connect_error};
use super::schema::eclusa_schema;
use super::tls;
use crate::store::compatibility::Schema;
use crate::store::{ErrorKind, StoreError};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::timeout;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Key of the session lock that one migrating process holds; any constant will do.
const LOCK: i64 = 0x6563_6c75_7361_0001;

/// Runs the migrations that are missing, one process at a time, and names them.
///
/// The others wait for the first one without limit: a migration may take long.
///
/// # Errors
/// The database cannot be reached, refuses, or was migrated by a newer release.
pub async fn migrate(options: &PostgresOptions) -> Result<Vec<String>, StoreError> {
    let config = options.base_config()?;
    let connecting = connect(&config, tls::connector(&config)?);
    let mut connection = match timeout(options.connect_timeout, connecting).await {
        Ok(result) => result.map_err(connect_error)?,
        Err(_) => return Err(StoreError::no_connection_within(options.connect_timeout)),
    };
    // The lock is the session's: it goes with the connection, also when this process dies.
    connection
        .batch_execute(&format!("SELECT pg_advisory_lock({LOCK})"))
        .await
        .map_err(StoreError::postgres_read)?;
    if let Some(schema) = read_schema(&mut connection)
        .await
        .map_err(StoreError::postgres_read)?
    {
        schema.check_not_newer()?;
    }
    // The harness blocks its thread, which on a single-threaded runtime would be the only one.
    let run = tokio::task::spawn_blocking(move || {
        AsyncMigrationHarness::new(connection)
            .run_pending_migrations(MIGRATIONS)
            .map(|applied| applied.iter().map(ToString::to_string).collect())
            .map_err(failed)
    });
    run.await.unwrap_or_else(|error| Err(failed(error.into())))
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    let error = match error.downcast::<diesel::result::Error>() {
        Ok(error) => StoreError::postgres_read(*error),
        Err(error) => StoreError::new(ErrorKind::Operator, error.to_string()),
    };
    error.context("a migration failed")
}

/// What the database says about its schema; `None` if there is none.
pub(super) async fn read_schema(
    connection: &mut AsyncPgConnection,
) -> Result<Option<Schema>, diesel::result::Error> {
    let exists =
        diesel::dsl::sql::<diesel::sql_types::Bool>("to_regclass('eclusa_schema') IS NOT NULL");
    if !diesel::select(exists)
        .get_result::<bool>(connection)
        .await?
    {
        return Ok(None);
    }
    eclusa_schema::table
        .filter(eclusa_schema::single.eq(true))
        .select((eclusa_schema::version, eclusa_schema::oldest_compatible))
        .first(connection)
        .await
        .optional()
}

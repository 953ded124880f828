//! The transaction that a follower's effect and its new position share.

use super::StoreError;
use async_trait::async_trait;

/// An open transaction of the store, which the store commits or rolls back.
pub enum Transaction<'a> {
    /// On PostgreSQL, for diesel-async.
    #[cfg(feature = "postgres")]
    Postgres(&'a mut diesel_async::AsyncPgConnection),
    /// On SQLite, for diesel; on the one thread that writes, so what takes long here keeps every event
    /// waiting.
    #[cfg(feature = "sqlite")]
    Sqlite(&'a mut diesel::SqliteConnection),
}

/// Why an effect could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EffectError {
    /// The database refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The follower's own code refuses an event; the sentence says why.
    #[error("{0}")]
    Refused(String),
}

impl EffectError {
    /// The word in metric labels.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Store(error) => error.kind().as_str(),
            Self::Refused(_) => "refused",
        }
    }
}

impl From<diesel::result::Error> for EffectError {
    /// Classified by the texts of both databases.
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(StoreError::either(error))
    }
}

/// What is done to the database in the transaction of a new position.
#[async_trait]
pub trait Effect: Send + Sync {
    /// Does it. Everything is rolled back after an error.
    ///
    /// # Errors
    /// Why it could not be done.
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError>;
}

/// No effect: the position alone moves.
pub struct NoEffect;

#[async_trait]
impl Effect for NoEffect {
    async fn run(&self, _transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        Ok(())
    }
}

//! The outcome of a run that its handler stores itself, in the transaction of its own effects.

use super::handler::Run;
use crate::store::commit_log::Position;
use crate::store::reactions::Completed;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// By what a run is completed.
#[derive(Debug, Clone)]
pub(super) struct Completion {
    pub(super) reaction: i32,
    pub(super) position: Position,
    /// Of the claim; `None` for a first attempt.
    pub(super) token: Option<i64>,
    pub(super) worker: Arc<str>,
    /// The handler has begun to complete it.
    pub(super) begun: Arc<AtomicBool>,
}

/// Why a run was not completed.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// The run has an outcome, or another attempt of it is under way: roll the transaction back.
    #[error(
        "run {0} has an outcome already, or another attempt has taken it over; roll the transaction back"
    )]
    Decided(String),
    /// The run is none that a reaction has started.
    #[error("run {0} was not started by a reaction")]
    NotStarted(String),
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

impl Run {
    fn completed(&self) -> Result<Completed, CompleteError> {
        let Some(completion) = &self.completion else {
            return Err(CompleteError::NotStarted(self.id()));
        };
        completion.begun.store(true, Ordering::Release);
        Ok(Completed {
            reaction: completion.reaction,
            position: completion.position,
            token: completion.token,
            event_id: self.event.event_id,
            attempt: self.attempt,
            worker: Arc::clone(&completion.worker),
        })
    }

    /// Stores in the caller's open transaction that the run has succeeded. What the transaction does happens exactly
    /// once: of several attempts one commits. The connection may be any that the application has to Eclusa's
    /// database.
    ///
    /// # Errors
    /// The run has an outcome already, in which case the transaction must be rolled back; or the database's.
    #[cfg(feature = "postgres")]
    pub async fn complete_in(
        &self,
        transaction: &mut diesel_async::AsyncPgConnection,
    ) -> Result<(), CompleteError> {
        let completed = self.completed()?;
        match crate::store::postgres::complete(transaction, &completed).await? {
            true => Ok(()),
            false => Err(CompleteError::Decided(self.id())),
        }
    }

    /// The same in a transaction on Eclusa's SQLite file.
    ///
    /// # Errors
    /// As [`Run::complete_in`].
    #[cfg(feature = "sqlite")]
    pub fn complete_in_sqlite(
        &self,
        transaction: &mut diesel::SqliteConnection,
    ) -> Result<(), CompleteError> {
        let completed = self.completed()?;
        match crate::store::sqlite::complete(transaction, &completed)? {
            true => Ok(()),
            false => Err(CompleteError::Decided(self.id())),
        }
    }
}

//! Runs; see [`RunStore`].

use super::PostgresStore;
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::followers::Commanded;
use crate::store::leases::{Fenced, Lease};
use crate::store::runs::{
    CancelledRun, ExpiredRuns, Held, ReopenedRun, RunCounts, RunFilter, RunOrder, RunRecord,
    RunStore,
};
use crate::store::{ErrorKind, StoreError};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

fn absent() -> StoreError {
    StoreError::new(ErrorKind::Operator, "not built".to_owned())
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn run_counts(&self) -> Result<Vec<RunCounts>, StoreError> {
        Err(absent())
    }

    async fn list_runs(
        &self,
        _filter: &RunFilter,
        _order: RunOrder,
        _limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError> {
        Err(absent())
    }

    async fn runs_of(&self, _event_id: Uuid) -> Result<Vec<RunRecord>, StoreError> {
        Err(absent())
    }

    async fn position_of(&self, _event_id: Uuid) -> Result<Option<Position>, StoreError> {
        Err(absent())
    }

    async fn position_at(&self, _time: DateTime<Utc>) -> Result<Position, StoreError> {
        Err(absent())
    }

    async fn held_at(
        &self,
        _reaction: &str,
        _position: Position,
    ) -> Result<Option<Held>, StoreError> {
        Err(absent())
    }

    async fn events_of(&self, _ids: &[Uuid]) -> Result<Vec<StoredEvent>, StoreError> {
        Err(absent())
    }

    async fn pause_reaction(&self, _name: &str, _paused: bool) -> Result<Commanded, StoreError> {
        Err(absent())
    }

    async fn remove_reaction(&self, _name: &str) -> Result<Commanded, StoreError> {
        Err(absent())
    }

    async fn cancel_run(
        &self,
        _reaction: i32,
        _position: Position,
        _event_id: Uuid,
        _reason: &str,
    ) -> Result<CancelledRun, StoreError> {
        Err(absent())
    }

    async fn reopen_runs(
        &self,
        _reaction: i32,
        _runs: Vec<ReopenedRun>,
    ) -> Result<u64, StoreError> {
        Err(absent())
    }

    async fn expire_runs(
        &self,
        _lease: &Lease,
        _keep: Option<u32>,
    ) -> Result<Fenced<ExpiredRuns>, StoreError> {
        Err(absent())
    }
}

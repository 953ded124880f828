//! Followers; see [`FollowerStore`].

use super::SqliteStore;
use super::follower_commands::{change, request};
use super::follower_records::{day, declare, floor, record};
use super::follower_steps::{StepFailure, transact};
use super::leases;
use super::schema::{follower_replays as replays, followers};
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::dead_letters::Replayed;
use crate::store::followers::{
    Commanded, Declaration, FollowerCommand, FollowerRecord, FollowerState, FollowerStore,
    PendingReplay, Step,
};
use crate::store::leases::{Fenced, Lease};
use crate::store::rows::{IdColumn, JsonColumn};
use crate::store::transaction::{Effect, EffectError};
use crate::store::{StoreError, queries};
use crate::supervision::failpoint;
use async_trait::async_trait;
use chrono::NaiveDate;
use diesel::prelude::*;
use std::sync::Arc;
use tokio::runtime::Handle;
use uuid::Uuid;

#[async_trait]
impl FollowerStore for SqliteStore {
    async fn declare(&self, declaration: &Declaration) -> Result<bool, StoreError> {
        let declaration = declaration.clone();
        self.writer.ask(1, move |c| declare(c, &declaration)).await
    }

    async fn follower(&self, name: &str) -> Result<Option<FollowerRecord>, StoreError> {
        let name = name.to_owned();
        self.readers
            .read(move |c| Ok(c.transaction(|c| record(c, &name))?))
            .await
    }

    async fn followers(&self) -> Result<Vec<FollowerRecord>, StoreError> {
        self.readers
            .read(|connection| {
                let found = connection.transaction(|connection| {
                    let names: Vec<String> = followers::table
                        .select(followers::name)
                        .order(followers::name)
                        .load(connection)?;
                    let records = names.iter().map(|name| record(connection, name));
                    records.collect::<QueryResult<Vec<_>>>()
                })?;
                Ok(found.into_iter().flatten().collect())
            })
            .await
    }

    async fn step(&self, step: Step, effect: Arc<dyn Effect>) -> Result<Fenced<()>, EffectError> {
        let runtime = Handle::current();
        let done = self
            .writer
            .ask(1, move |connection| {
                let done = connection.transaction(|c| transact(c, step, &*effect, &runtime));
                match done {
                    Ok(fenced) => Ok(Ok(fenced)),
                    Err(StepFailure(EffectError::Store(error))) => Err(error.into()),
                    Err(StepFailure(refused)) => Ok(Err(refused)),
                }
            })
            .await?;
        if matches!(done, Ok(Fenced::Done(()))) {
            failpoint::hit("follower.after_commit");
        }
        done
    }

    async fn stop_follower(
        &self,
        lease: &Lease,
        name: &str,
        revision: i64,
        state: FollowerState,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let (lease, name, reason) = (lease.clone(), name.to_owned(), reason.to_owned());
        self.writer
            .ask(1, move |connection| {
                if !leases::is_held(connection, &lease)? {
                    return Ok(false);
                }
                let running = followers::table
                    .find(name)
                    .filter(followers::revision.eq(revision))
                    .filter(followers::state.eq(FollowerState::Running.as_str()));
                let now = leases::now(connection)?;
                let stopped = diesel::update(running)
                    .set((
                        followers::state.eq(state.as_str()),
                        followers::reason.eq(reason),
                        followers::revision.eq(followers::revision + 1),
                        followers::changed_at.eq(now),
                    ))
                    .execute(connection)?;
                Ok(stopped == 1)
            })
            .await
    }

    async fn command(&self, name: &str, command: FollowerCommand) -> Result<Commanded, StoreError> {
        let name = name.to_owned();
        self.writer.ask(1, move |c| change(c, &name, command)).await
    }

    async fn pending_replays(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<PendingReplay>, StoreError> {
        let name = name.to_owned();
        self.readers
            .read(move |connection| {
                let rows = replays::table
                    .filter(replays::follower.eq(name))
                    .order((replays::requested_at, replays::letter))
                    .limit(queries::as_limit(limit))
                    .select((replays::letter, replays::position, replays::event))
                    .load::<(IdColumn, i64, JsonColumn)>(connection)?;
                let pending = rows.into_iter().map(|(letter, position, event)| {
                    Ok(PendingReplay {
                        letter: letter.0,
                        position: Position(position),
                        event: event.parse::<StoredEvent>()?,
                    })
                });
                Ok(pending.collect::<QueryResult<Vec<_>>>()?)
            })
            .await
    }

    async fn request_replays(&self, letters: &[Replayed]) -> Result<Vec<Uuid>, StoreError> {
        let letters = letters.to_vec();
        self.writer
            .ask(letters.len(), move |c| request(c, &letters))
            .await
    }

    async fn complete_since(&self) -> Result<Option<NaiveDate>, StoreError> {
        self.readers.read(|c| Ok(day(floor(c)?))).await
    }
}

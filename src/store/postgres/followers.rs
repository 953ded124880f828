//! Followers; see [`FollowerStore`].

use super::PostgresStore;
use super::follower_commands::{change, notify};
use super::follower_records::{floor, records};
use super::follower_steps::transact;
use super::schema::follower_replays;
use crate::event::StoredEvent;
use crate::store::commit_log::{CommitLog, Position, ROUND};
use crate::store::dead_letters::Replayed;
use crate::store::followers::{
    Commanded, Declaration, FollowerCommand, FollowerRecord, FollowerState, FollowerStore,
    PendingReplay, Start, Step,
};
use crate::store::leases::{Fenced, Lease};
use crate::store::rows::{IdColumn, JsonColumn};
use crate::store::transaction::{Effect, EffectError};
use crate::store::{StoreError, queries};
use crate::supervision::failpoint;
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Text, Timestamptz};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager};
use std::sync::Arc;
use uuid::Uuid;

diesel::define_sql_function! {
    fn eclusa_declare_follower(
        name: Text, kind: Text, types: Array<Text>, on_error: Text, from_now: Bool
    ) -> Bool;
}
/// The letter's body is the event as JSON, and its header `position` the place in the log.
const REQUEST: &str = "\
    WITH sent AS ( \
        SELECT letter.id, letter.origin, letter.headers->>'position' AS position, letter.body \
        FROM dead_letters AS letter \
        JOIN unnest($1::uuid[], $2::timestamptz[]) AS sent (id, failed_at) \
            ON letter.id = sent.id AND letter.failed_at = sent.failed_at \
        JOIN followers AS follower ON follower.name = letter.origin \
        WHERE letter.cause IN ('follower', 'undeliverable') AND letter.state = 'dead' \
          AND letter.headers->>'position' IS NOT NULL \
        ORDER BY letter.id FOR UPDATE OF letter \
    ), requested AS ( \
        INSERT INTO follower_replays (letter, follower, position, event) \
        SELECT id, origin, position::bigint, convert_from(body, 'UTF8')::jsonb FROM sent \
        ON CONFLICT (letter) DO NOTHING RETURNING letter \
    ) \
    UPDATE dead_letters AS letter \
    SET state = 'replayed', replays = letter.replays + 1, replayed_at = now() \
    FROM requested WHERE letter.id = requested.letter RETURNING letter.id";

#[derive(QueryableByName)]
struct RequestedRow {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    id: Uuid,
}

#[async_trait]
impl FollowerStore for PostgresStore {
    async fn declare(&self, declaration: &Declaration) -> Result<bool, StoreError> {
        // A backlog is not numbered in the transaction of the declaration, which is one for all of it.
        while self.number_commits().await?.commits >= ROUND {}
        let declared = eclusa_declare_follower(
            declaration.name.as_str(),
            declaration.kind.as_str(),
            declaration.types.to_vec(),
            declaration.on_error.as_str(),
            declaration.start == Start::Now,
        );
        let declare = async |connection: &mut AsyncPgConnection| {
            let changed = diesel::select(declared).get_result(connection).await?;
            if changed {
                notify(connection).await?;
            }
            Ok(changed)
        };
        self.pools.sequence(declare).await
    }

    async fn follower(&self, name: &str) -> Result<Option<FollowerRecord>, StoreError> {
        let mut found = self
            .pools
            .sequence(async |connection| records(connection, Some(name)).await)
            .await?;
        Ok(found.pop())
    }

    async fn followers(&self) -> Result<Vec<FollowerRecord>, StoreError> {
        self.pools
            .read(async |connection| records(connection, None).await)
            .await
    }

    async fn step(&self, step: Step, effect: Arc<dyn Effect>) -> Result<Fenced<()>, EffectError> {
        let refused = self.pools.follow(async |connection| {
            let failed = StoreError::postgres_read;
            AnsiTransactionManager::begin_transaction(connection)
                .await
                .map_err(failed)?;
            let done = transact(connection, &step, &*effect).await;
            if matches!(done, Ok(Fenced::Done(()))) {
                failpoint::hit("follower.before_commit");
                let committed = AnsiTransactionManager::commit_transaction(connection).await;
                committed.map_err(failed)?;
                failpoint::hit("follower.after_commit");
            } else {
                let rolled_back = AnsiTransactionManager::rollback_transaction(connection).await;
                rolled_back.map_err(failed)?;
            }
            match done {
                Ok(fenced) => Ok(Ok(fenced)),
                Err(EffectError::Store(error)) => Err(error),
                Err(refused) => Ok(Err(refused)),
            }
        });
        refused.await?
    }

    async fn stop_follower(
        &self,
        lease: &Lease,
        name: &str,
        revision: i64,
        state: FollowerState,
        reason: &str,
    ) -> Result<bool, StoreError> {
        const STOP: &str = "\
            UPDATE followers \
            SET state = $1, reason = $2, revision = revision + 1, changed_at = clock_timestamp() \
            WHERE name = $3 AND state = 'running' AND revision = $6 \
              AND EXISTS (SELECT FROM leases WHERE name = $4 AND token = $5)";
        let reason = reason.replace('\0', "\u{fffd}");
        let stop = async |connection: &mut AsyncPgConnection| {
            diesel::sql_query(STOP)
                .bind::<Text, _>(state.as_str())
                .bind::<Text, _>(&reason)
                .bind::<Text, _>(name)
                .bind::<Text, _>(&lease.name)
                .bind::<BigInt, _>(lease.token)
                .bind::<BigInt, _>(revision)
                .execute(connection)
                .await
        };
        Ok(self.pools.sequence(stop).await? == 1)
    }

    async fn command(&self, name: &str, command: FollowerCommand) -> Result<Commanded, StoreError> {
        self.pools
            .sequence(async |connection| change(connection, name, command).await)
            .await
    }

    async fn pending_replays(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<PendingReplay>, StoreError> {
        use follower_replays::dsl;
        let load = async |connection: &mut AsyncPgConnection| {
            dsl::follower_replays
                .filter(dsl::follower.eq(name))
                .order((dsl::requested_at, dsl::letter))
                .limit(queries::as_limit(limit))
                .select((dsl::letter, dsl::position, dsl::event))
                .load::<(IdColumn, i64, JsonColumn)>(connection)
                .await?
                .into_iter()
                .map(|(letter, position, event)| {
                    Ok(PendingReplay {
                        letter: letter.0,
                        position: Position(position),
                        event: event.parse::<StoredEvent>()?,
                    })
                })
                .collect()
        };
        self.pools.sequence(load).await
    }

    async fn request_replays(&self, letters: &[Replayed]) -> Result<Vec<Uuid>, StoreError> {
        let ids: Vec<Uuid> = letters.iter().map(|letter| letter.id).collect();
        let failed_at: Vec<DateTime<Utc>> = letters.iter().map(|letter| letter.failed_at).collect();
        let request = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<RequestedRow> = diesel::sql_query(REQUEST)
                .bind::<Array<diesel::sql_types::Uuid>, _>(&ids)
                .bind::<Array<Timestamptz>, _>(&failed_at)
                .load(connection)
                .await?;
            notify(connection).await?;
            Ok(rows.into_iter().map(|row| row.id).collect())
        };
        self.pools.sequence(request).await
    }

    async fn complete_since(&self) -> Result<Option<NaiveDate>, StoreError> {
        self.pools.read(floor).await
    }
}

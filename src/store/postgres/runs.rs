//! Runs; see [`RunStore`].

use super::PostgresStore;
use super::{reaction_commands, removed_reactions, run_commands, run_positions};
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::followers::Commanded;
use crate::store::rows::{IdColumn, JsonColumn, TimeColumn};
use crate::store::runs::{
    CancelledRun, Held, ReopenedRun, RunCounts, RunFilter, RunOrder, RunRecord, RunState, RunStore,
};
use crate::store::{ReactionStore, StoreError, queries};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as UuidType,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::time::Duration;
use uuid::Uuid;

/// Open runs, as the queue has them.
const OPEN: &str = "\
    SELECT q.reaction, q.position, q.event_id, \
           CASE WHEN q.token IS NOT NULL AND q.due > now() THEN 'running' \
                WHEN q.token IS NOT NULL OR q.attempts > q.attempts_before THEN 'retryable' \
                WHEN q.due > now() AND q.due < 'infinity' THEN 'scheduled' \
                ELSE 'available' END AS state, \
           q.attempts, CASE WHEN q.due < 'infinity' THEN q.due END AS due, \
           NULL::timestamptz AS finished_at, NULL::bigint AS duration_us, q.worker, NULL::text AS error, q.history \
    FROM reaction_queue AS q";

/// The others.
pub(super) const ENDED: &str = "\
    SELECT run.reaction, run.position, run.event_id, run.state, run.attempts, NULL::timestamptz AS due, \
           run.finished_at, run.duration_us, run.worker, run.error, run.history \
    FROM reaction_runs AS run";

#[derive(QueryableByName)]
pub(super) struct RunRow {
    #[diesel(sql_type = Integer)]
    reaction: i32,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = UuidType)]
    event_id: IdColumn,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    due: Option<TimeColumn>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<TimeColumn>,
    #[diesel(sql_type = Nullable<BigInt>)]
    duration_us: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    worker: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    history: Option<JsonColumn>,
}

impl TryFrom<RunRow> for RunRecord {
    type Error = diesel::result::Error;

    fn try_from(row: RunRow) -> Result<Self, Self::Error> {
        let history = row.history.as_ref().map(JsonColumn::parse).transpose()?;
        Ok(Self {
            reaction: row.reaction,
            position: Position(row.position),
            event_id: row.event_id.0,
            state: RunState::parse(&row.state),
            attempts: row.attempts.unsigned_abs(),
            due: row.due.map(|due| due.0),
            finished_at: row.finished_at.map(|at| at.0),
            took: row
                .duration_us
                .map(|took| Duration::from_micros(took.unsigned_abs())),
            worker: row.worker,
            error: row.error,
            history: history.unwrap_or_default(),
        })
    }
}

const COUNTS: &str = "\
    SELECT r.id AS reaction, \
           coalesce((SELECT sum(succeeded) FROM reaction_counts WHERE reaction = r.id), 0)::bigint AS succeeded, \
           (SELECT count(*) FROM reaction_runs WHERE reaction = r.id AND state = 'failed') AS failed, \
           (SELECT count(*) FROM reaction_runs WHERE reaction = r.id AND state = 'cancelled') AS cancelled, \
           (SELECT count(*) FROM reaction_queue WHERE reaction = r.id) AS queued \
    FROM reactions AS r ORDER BY r.id";

#[derive(QueryableByName)]
struct CountsRow {
    #[diesel(sql_type = Integer)]
    reaction: i32,
    #[diesel(sql_type = BigInt)]
    succeeded: i64,
    #[diesel(sql_type = BigInt)]
    failed: i64,
    #[diesel(sql_type = BigInt)]
    cancelled: i64,
    #[diesel(sql_type = BigInt)]
    queued: i64,
}

async fn counts(connection: &mut AsyncPgConnection) -> QueryResult<Vec<RunCounts>> {
    let rows: Vec<CountsRow> = diesel::sql_query(COUNTS).load(connection).await?;
    let counts = rows.into_iter().map(|row| RunCounts {
        reaction: row.reaction,
        succeeded: row.succeeded.max(0).unsigned_abs(),
        failed: row.failed.unsigned_abs(),
        cancelled: row.cancelled.unsigned_abs(),
        queued: row.queued.unsigned_abs(),
    });
    Ok(counts.collect())
}

/// A page. Each state is a range of an index: those of the queue together, and each ended one.
async fn list(
    connection: &mut AsyncPgConnection,
    filter: &RunFilter,
    order: RunOrder,
    limit: usize,
) -> QueryResult<Vec<RunRecord>> {
    let direction = match order {
        RunOrder::Oldest => "ASC",
        RunOrder::Newest => "DESC",
    };
    let page = format!("ORDER BY position {direction} LIMIT $5");
    let range = "reaction = $1 AND position > $2 AND position <= $3";
    let mut parts: Vec<String> = Vec::new();
    for state in RunState::ALL {
        if filter.states.contains(&state) && !state.is_open() {
            let state = state.as_str();
            parts.push(format!(
                "(SELECT * FROM ({ENDED} WHERE {range} AND run.state = '{state}') AS ended {page})"
            ));
        }
    }
    let open = filter.states.iter().filter(|state| state.is_open());
    let open: Vec<&str> = open.map(|state| state.as_str()).collect();
    if !open.is_empty() {
        parts.push(format!(
            "(SELECT * FROM ({OPEN} WHERE {range}) AS open WHERE state = ANY ($4) {page})"
        ));
    }
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    // The parameter has its type also where no part uses it.
    let all = parts.join(" UNION ALL ");
    let sql = format!("SELECT * FROM ({all}) AS runs WHERE $4::text[] IS NOT NULL {page}");
    let rows: Vec<RunRow> = diesel::sql_query(sql)
        .bind::<Integer, _>(filter.reaction)
        .bind::<BigInt, _>(filter.after.0)
        .bind::<BigInt, _>(filter.until.0)
        .bind::<Array<Text>, _>(open)
        .bind::<BigInt, _>(queries::as_limit(limit))
        .load(connection)
        .await?;
    rows.into_iter().map(RunRecord::try_from).collect()
}

/// By the position if the log has the event, and else what the queue has.
async fn of_event(
    connection: &mut AsyncPgConnection,
    event_id: Uuid,
) -> QueryResult<Vec<RunRecord>> {
    let position = run_positions::of_event(connection, event_id).await?;
    let sql = format!(
        "{OPEN} WHERE q.event_id = $1 UNION ALL \
         {ENDED} WHERE run.reaction = ANY (ARRAY(SELECT id FROM reactions)) AND run.position = $2 \
                   AND run.event_id = $1 AND run.state <> 'open' \
         ORDER BY reaction, position"
    );
    let rows: Vec<RunRow> = diesel::sql_query(sql)
        .bind::<UuidType, _>(event_id)
        .bind::<Nullable<BigInt>, _>(position.map(|position| position.0))
        .load(connection)
        .await?;
    rows.into_iter().map(RunRecord::try_from).collect()
}

impl PostgresStore {
    async fn release_removed(&self) -> Result<u64, StoreError> {
        self.pools
            .follow(async |connection| {
                removed_reactions::release(connection)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await
    }
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn run_counts(&self) -> Result<Vec<RunCounts>, StoreError> {
        self.pools.read(counts).await
    }

    async fn list_runs(
        &self,
        filter: &RunFilter,
        order: RunOrder,
        limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError> {
        self.pools
            .read(async |connection| list(connection, filter, order, limit).await)
            .await
    }

    async fn runs_of(&self, event_id: Uuid) -> Result<Vec<RunRecord>, StoreError> {
        self.pools
            .read(async |connection| of_event(connection, event_id).await)
            .await
    }

    async fn position_of(&self, event_id: Uuid) -> Result<Option<Position>, StoreError> {
        self.pools
            .read(async |connection| run_positions::of_event(connection, event_id).await)
            .await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        self.pools
            .read(async |connection| run_positions::at(connection, time).await)
            .await
    }

    async fn held_at(
        &self,
        reaction: &str,
        position: Position,
    ) -> Result<Option<Held>, StoreError> {
        self.pools
            .read(async |connection| run_positions::held(connection, reaction, position).await)
            .await
    }

    async fn events_of(&self, ids: &[Uuid]) -> Result<Vec<StoredEvent>, StoreError> {
        // A generic plan would lock every partition; see `followers_config`.
        self.pools
            .follow(async |connection| {
                run_positions::events(connection, ids)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await
    }

    async fn pause_reaction(&self, name: &str, paused: bool) -> Result<Commanded, StoreError> {
        self.pools
            .sequence(async |connection| reaction_commands::pause(connection, name, paused).await)
            .await
    }

    async fn remove_reaction(&self, name: &str) -> Result<Commanded, StoreError> {
        let removed = self
            .pools
            .follow(async |connection| {
                reaction_commands::remove(connection, name)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await?;
        if removed == Commanded::Done {
            self.refresh_awaited().await?;
            // What is left when this ends early, the retention does.
            while self.release_removed().await? > 0 {}
        }
        Ok(removed)
    }

    async fn cancel_run(
        &self,
        reaction: i32,
        position: Position,
        event_id: Uuid,
        reason: &str,
    ) -> Result<CancelledRun, StoreError> {
        self.pools
            .follow(async |connection| {
                run_commands::cancel(connection, reaction, position, event_id, reason).await
            })
            .await
    }

    async fn reopen_runs(&self, reaction: i32, runs: Vec<ReopenedRun>) -> Result<u64, StoreError> {
        self.pools
            .follow(async |connection| {
                run_commands::reopen(connection, reaction, &runs)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await
    }
}

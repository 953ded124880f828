//! Runs; see [`RunStore`].

use super::SqliteStore;
use super::reaction_runs::NEVER;
use super::schema::{
    reaction_counts as counts, reaction_queue as queue, reaction_runs as runs, reactions,
};
use super::{leases, reaction_commands, run_commands, run_positions};
use crate::event::StoredEvent;
use crate::store::commit_log::Position;
use crate::store::followers::Commanded;
use crate::store::rows::{IdColumn, JsonColumn, TimeColumn};
use crate::store::runs::{
    CancelledRun, Held, ReopenedRun, RunCounts, RunFilter, RunOrder, RunRecord, RunState, RunStore,
};
use crate::store::{StoreError, queries};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::dsl::{case_when, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use std::time::Duration;
use uuid::Uuid;

/// What the index of runs that did not succeed has, in words by which SQLite knows it.
pub(super) const NOT_SUCCEEDED: &str = "state <> 'succeeded'";

/// Most positions or ids in one query.
pub(super) const VARIABLES: usize = 1_000;

/// A row of an ended run.
#[derive(Queryable)]
pub(super) struct EndedRow {
    reaction: i32,
    position: i64,
    event_id: IdColumn,
    pub(super) state: String,
    attempts: i32,
    finished_at: Option<TimeColumn>,
    duration_us: Option<i64>,
    worker: Option<String>,
    error: Option<String>,
    history: Option<JsonColumn>,
}

impl TryFrom<EndedRow> for RunRecord {
    type Error = diesel::result::Error;

    fn try_from(row: EndedRow) -> Result<Self, Self::Error> {
        let history = row.history.as_ref().map(JsonColumn::parse).transpose()?;
        Ok(Self {
            reaction: row.reaction,
            position: Position(row.position),
            event_id: row.event_id.0,
            state: RunState::parse(&row.state),
            attempts: row.attempts.unsigned_abs(),
            due: None,
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

/// A row of the queue.
#[derive(Queryable)]
struct OpenRow {
    reaction: i32,
    position: i64,
    event_id: IdColumn,
    state: String,
    attempts: i32,
    due: i64,
    worker: Option<String>,
    history: JsonColumn,
}

impl TryFrom<OpenRow> for RunRecord {
    type Error = diesel::result::Error;

    fn try_from(row: OpenRow) -> Result<Self, Self::Error> {
        Ok(Self {
            reaction: row.reaction,
            position: Position(row.position),
            event_id: row.event_id.0,
            state: RunState::parse(&row.state),
            attempts: row.attempts.unsigned_abs(),
            due: match row.due {
                NEVER => None,
                due => DateTime::from_timestamp_micros(due),
            },
            finished_at: None,
            took: None,
            worker: row.worker,
            error: None,
            history: row.history.parse()?,
        })
    }
}

/// The state of a run of the queue, as SQL.
macro_rules! open_state {
    ($now:expr) => {
        case_when(
            queue::token.is_not_null().and(queue::due.gt($now)),
            "running".into_sql::<Text>(),
        )
        .when(
            queue::token
                .is_not_null()
                .or(queue::attempts.gt(queue::attempts_before)),
            "retryable".into_sql::<Text>(),
        )
        .when(
            queue::due.gt($now).and(queue::due.lt(NEVER)),
            "scheduled".into_sql::<Text>(),
        )
        .otherwise("available".into_sql::<Text>())
    };
}

macro_rules! open_columns {
    ($now:expr) => {
        (
            queue::reaction,
            queue::position,
            queue::event_id,
            open_state!($now),
            queue::attempts,
            queue::due,
            queue::worker,
            queue::history,
        )
    };
}

fn records<R>(rows: Vec<R>) -> QueryResult<Vec<RunRecord>>
where
    RunRecord: TryFrom<R, Error = diesel::result::Error>,
{
    rows.into_iter().map(RunRecord::try_from).collect()
}

fn run_counts(connection: &mut SqliteConnection) -> QueryResult<Vec<RunCounts>> {
    let ids: Vec<i32> = reactions::table
        .order(reactions::id)
        .select(reactions::id)
        .load(connection)?;
    let count = |connection: &mut SqliteConnection, id: i32| {
        let succeeded: Option<i64> = counts::table
            .find(id)
            .select(counts::succeeded)
            .first(connection)
            .optional()?;
        let mut ended = |state: RunState| {
            let runs = runs::table
                .filter(runs::reaction.eq(id))
                .filter(runs::state.eq(state.as_str()))
                .filter(sql::<Bool>(NOT_SUCCEEDED));
            runs.count().get_result::<i64>(connection)
        };
        let (failed, cancelled) = (ended(RunState::Failed)?, ended(RunState::Cancelled)?);
        let queued: i64 = queue::table
            .filter(queue::reaction.eq(id))
            .count()
            .get_result(connection)?;
        Ok(RunCounts {
            reaction: id,
            succeeded: succeeded.unwrap_or(0).max(0).unsigned_abs(),
            failed: failed.unsigned_abs(),
            cancelled: cancelled.unsigned_abs(),
            queued: queued.unsigned_abs(),
        })
    };
    ids.into_iter().map(|id| count(connection, id)).collect()
}

/// A page. Each state is a range of an index: those of the queue together, and each ended one.
fn list(
    connection: &mut SqliteConnection,
    filter: &RunFilter,
    order: RunOrder,
    limit: usize,
) -> QueryResult<Vec<RunRecord>> {
    let now = leases::now(connection)?;
    let mut found = Vec::new();
    let open = filter.states.iter().filter(|state| state.is_open());
    let open: Vec<&str> = open.map(|state| state.as_str()).collect();
    if !open.is_empty() {
        let page = queue::table
            .select(open_columns!(now))
            .filter(queue::reaction.eq(filter.reaction))
            .filter(queue::position.gt(filter.after.0))
            .filter(queue::position.le(filter.until.0))
            .filter(open_state!(now).eq_any(open))
            .limit(queries::as_limit(limit))
            .into_boxed();
        let page = match order {
            RunOrder::Oldest => page.order(queue::position.asc()),
            RunOrder::Newest => page.order(queue::position.desc()),
        };
        found.extend(records(page.load::<OpenRow>(connection)?)?);
    }
    for state in RunState::ALL {
        if state.is_open() || !filter.states.contains(&state) {
            continue;
        }
        let mut page = runs::table
            .select(runs::position)
            .filter(runs::reaction.eq(filter.reaction))
            .filter(runs::state.eq(state.as_str()))
            .filter(runs::position.gt(filter.after.0))
            .filter(runs::position.le(filter.until.0))
            .limit(queries::as_limit(limit))
            .into_boxed();
        if state != RunState::Succeeded {
            page = page.filter(sql::<Bool>(NOT_SUCCEEDED));
        }
        let page = match order {
            RunOrder::Oldest => page.order(runs::position.asc()),
            RunOrder::Newest => page.order(runs::position.desc()),
        };
        // The positions alone: for whole rows SQLite would take the table, with all that succeeded, and not the index.
        let positions: Vec<i64> = page.load(connection)?;
        for positions in positions.chunks(VARIABLES) {
            let rows = runs::table
                .filter(runs::reaction.eq(filter.reaction))
                .filter(runs::position.eq_any(positions));
            found.extend(records(rows.load::<EndedRow>(connection)?)?);
        }
    }
    found.sort_by_key(|run| run.position);
    if order == RunOrder::Newest {
        found.reverse();
    }
    found.truncate(limit);
    Ok(found)
}

/// By the position if the log has the event, and else what the queue has.
fn of_event(connection: &mut SqliteConnection, event_id: Uuid) -> QueryResult<Vec<RunRecord>> {
    let now = leases::now(connection)?;
    let open = queue::table
        .select(open_columns!(now))
        .filter(queue::event_id.eq(IdColumn(event_id)));
    let mut found = records(open.load::<OpenRow>(connection)?)?;
    if let Some(position) = run_positions::of_event(connection, event_id)? {
        let ended = runs::table
            .filter(runs::reaction.eq_any(reactions::table.select(reactions::id)))
            .filter(runs::position.eq(position.0))
            .filter(runs::event_id.eq(IdColumn(event_id)))
            .filter(runs::state.ne("open"));
        found.extend(records(ended.load::<EndedRow>(connection)?)?);
    }
    found.sort_by_key(|run| (run.reaction, run.position));
    Ok(found)
}

#[async_trait]
impl RunStore for SqliteStore {
    async fn run_counts(&self) -> Result<Vec<RunCounts>, StoreError> {
        self.readers
            .read(|connection| Ok(connection.transaction(run_counts)?))
            .await
    }

    async fn list_runs(
        &self,
        filter: &RunFilter,
        order: RunOrder,
        limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let filter = filter.clone();
        self.readers
            .read(move |c| Ok(c.transaction(|c| list(c, &filter, order, limit))?))
            .await
    }

    async fn runs_of(&self, event_id: Uuid) -> Result<Vec<RunRecord>, StoreError> {
        self.readers
            .read(move |c| Ok(c.transaction(|c| of_event(c, event_id))?))
            .await
    }

    async fn position_of(&self, event_id: Uuid) -> Result<Option<Position>, StoreError> {
        self.readers
            .read(move |c| Ok(run_positions::of_event(c, event_id)?))
            .await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        self.readers
            .read(move |c| Ok(c.transaction(|c| run_positions::at(c, time))?))
            .await
    }

    async fn held_at(
        &self,
        reaction: &str,
        position: Position,
    ) -> Result<Option<Held>, StoreError> {
        let reaction = reaction.to_owned();
        self.readers
            .read(move |c| Ok(run_positions::held(c, &reaction, position)?))
            .await
    }

    async fn events_of(&self, ids: &[Uuid]) -> Result<Vec<StoredEvent>, StoreError> {
        let ids = ids.to_vec();
        self.readers
            .read(move |c| Ok(run_positions::events(c, &ids)?))
            .await
    }

    async fn pause_reaction(&self, name: &str, paused: bool) -> Result<Commanded, StoreError> {
        let name = name.to_owned();
        self.writer
            .ask(1, move |c| Ok(reaction_commands::pause(c, &name, paused)?))
            .await
    }

    async fn remove_reaction(&self, name: &str) -> Result<Commanded, StoreError> {
        let name = name.to_owned();
        let removed = self
            .writer
            .ask(1, move |c| Ok(reaction_commands::remove(c, &name)?));
        let (removed, id) = removed.await?;
        if let Some(id) = id {
            // What is left when this ends early, the retention does.
            let release = move |c: &mut SqliteConnection| Ok(reaction_commands::release(c, id)?);
            while self.writer.ask(1_000, release).await? > 0 {}
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
        let reason = reason.to_owned();
        self.writer
            .ask(1, move |c| {
                run_commands::cancel(c, reaction, position, event_id, &reason)
            })
            .await
    }

    async fn reopen_runs(&self, reaction: i32, runs: Vec<ReopenedRun>) -> Result<u64, StoreError> {
        self.writer
            .ask(runs.len(), move |c| {
                Ok(run_commands::reopen(c, reaction, runs)?)
            })
            .await
    }
}

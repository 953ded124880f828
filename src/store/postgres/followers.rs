//! Followers: declarations, positions, states, and the transaction of a step.

use super::PostgresStore;
use super::commits::behind;
use super::follower_letters;
use super::listen::FOLLOWERS;
use super::schema::{follower_replays, followers, log_commits, log_floor};
use crate::event::StoredEvent;
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::dead_letters::Replayed;
use crate::store::followers::{
    Also, Commanded, Declaration, FollowerCommand, FollowerKind, FollowerRecord, FollowerState,
    FollowerStore, OnError, PendingReplay, Start, Step,
};
use crate::store::leases::{Fenced, Lease};
use crate::store::rows::{IdColumn, JsonColumn};
use crate::store::transaction::{Effect, EffectError, Transaction};
use crate::store::{StoreError, queries};
use crate::supervision::failpoint;
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Date, Nullable, Text, Timestamptz};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager};
use std::sync::Arc;
use uuid::Uuid;

/// Positions that are kept before the newest.
const KEPT: i64 = 64;

const RECORDS: &str = "\
    SELECT f.name, f.kind, f.state, f.reason, f.on_error, f.revision, f.rebuild, f.complete_since, \
           p.n, p.position, p.stored_at, d.types, next.holds_from AS until, \
           lease.holder AS run_by, \
           (SELECT count(*) FROM follower_replays AS r WHERE r.follower = f.name) AS replays \
    FROM followers AS f \
    CROSS JOIN LATERAL (SELECT n, position, stored_at FROM follower_positions \
                        WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p \
    CROSS JOIN LATERAL (SELECT types FROM follower_declarations \
                        WHERE follower = f.name AND holds_from <= p.position \
                        ORDER BY holds_from DESC LIMIT 1) AS d \
    LEFT JOIN LATERAL (SELECT holds_from FROM follower_declarations \
                       WHERE follower = f.name AND holds_from > p.position \
                       ORDER BY holds_from LIMIT 1) AS next ON true \
    LEFT JOIN leases AS lease \
        ON lease.name = 'follower ' || f.name AND lease.until > clock_timestamp() \
    WHERE $1 IS NULL OR f.name = $1 ORDER BY f.name";

#[derive(QueryableByName)]
struct RecordRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Text)]
    on_error: String,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Bool)]
    rebuild: bool,
    #[diesel(sql_type = Nullable<Date>)]
    complete_since: Option<NaiveDate>,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Timestamptz)]
    stored_at: DateTime<Utc>,
    #[diesel(sql_type = Array<Text>)]
    types: Vec<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    until: Option<i64>,
    #[diesel(sql_type = BigInt)]
    replays: i64,
    #[diesel(sql_type = Nullable<Text>)]
    run_by: Option<String>,
}

impl From<RecordRow> for FollowerRecord {
    fn from(row: RecordRow) -> Self {
        Self {
            name: row.name,
            kind: FollowerKind::parse(&row.kind),
            state: FollowerState::parse(&row.state),
            reason: row.reason,
            on_error: OnError::parse(&row.on_error),
            revision: row.revision,
            rebuild: row.rebuild,
            complete_since: row.complete_since,
            n: row.n,
            position: Position(row.position),
            moved_at: row.stored_at,
            types: TypePatterns::new(row.types),
            until: row.until.map_or(Position::MAX, Position),
            replays: row.replays.unsigned_abs(),
            run_by: row.run_by,
        }
    }
}

async fn records(
    connection: &mut AsyncPgConnection,
    name: Option<&str>,
) -> QueryResult<Vec<FollowerRecord>> {
    let rows: Vec<RecordRow> = diesel::sql_query(RECORDS)
        .bind::<Nullable<Text>, _>(name)
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

diesel::define_sql_function! {
    fn eclusa_declare_follower(
        name: Text, kind: Text, types: Array<Text>, on_error: Text, from_now: Bool
    ) -> Bool;
}

/// The fence, the check of the record and the new position, which nobody can have stored already: one
/// statement. The lock on the lease lasts until the commit.
const STEP: &str = "\
    WITH held AS MATERIALIZED ( \
        SELECT FROM leases WHERE name = $1 AND token = $2 FOR KEY SHARE \
    ), current AS MATERIALIZED ( \
        SELECT FROM followers WHERE name = $3 AND revision = $4 AND state = 'running' \
    ) \
    INSERT INTO follower_positions (follower, n, position) \
    SELECT $3, $5, $6 FROM held, current ON CONFLICT DO NOTHING";

const FORGET: &str = "DELETE FROM follower_positions WHERE follower = $1 AND n < $2";

/// What it subscribes to today holds from the beginning. What failed or waits to be applied again comes
/// again with the rest.
const REBUILD: [&str; 5] = [
    "DELETE FROM follower_declarations WHERE follower = $1 AND holds_from < \
         (SELECT max(holds_from) FROM follower_declarations WHERE follower = $1)",
    "UPDATE follower_declarations SET holds_from = 0 WHERE follower = $1",
    "DELETE FROM follower_replays WHERE follower = $1",
    "DELETE FROM dead_letters WHERE cause = 'follower' AND origin = $1 AND state = 'dead'",
    "UPDATE followers \
     SET rebuild = false, revision = revision + 1, changed_at = clock_timestamp(), \
         complete_since = (SELECT f.complete_since FROM log_floor AS f) \
     WHERE name = $1",
];

async fn transact(
    connection: &mut AsyncPgConnection,
    step: &Step,
    effect: &dyn Effect,
) -> Result<Fenced<()>, EffectError> {
    let failed = |error| EffectError::Store(StoreError::postgres_read(error));
    effect.run(&mut Transaction::Postgres(connection)).await?;
    // Behind the effect: if its code has passed over an error of the database, the transaction can only
    // be rolled back, and this says so, which a commit would not.
    let n = step.n.saturating_add(1);
    let moved = diesel::sql_query(STEP)
        .bind::<Text, _>(&step.lease.name)
        .bind::<BigInt, _>(step.lease.token)
        .bind::<Text, _>(&step.follower)
        .bind::<BigInt, _>(step.revision)
        .bind::<BigInt, _>(n)
        .bind::<BigInt, _>(step.to.0)
        .execute(connection)
        .await
        .map_err(failed)?;
    if moved == 0 {
        return Ok(Fenced::Lost);
    }
    match &step.also {
        Also::Nothing => {}
        Also::Rebuild => {
            for statement in REBUILD {
                diesel::sql_query(statement)
                    .bind::<Text, _>(&step.follower)
                    .execute(connection)
                    .await
                    .map_err(failed)?;
            }
        }
        Also::DeadLetter(letter) => {
            follower_letters::insert(connection, (**letter).clone()).await?;
        }
        Also::Replayed(letter) => replayed(connection, *letter).await.map_err(failed)?,
        Also::ReplayFailed(letter) => {
            replayed(connection, letter.id).await.map_err(failed)?;
            follower_letters::insert(connection, (**letter).clone()).await?;
        }
    }
    if n % KEPT == 0 {
        diesel::sql_query(FORGET)
            .bind::<Text, _>(&step.follower)
            .bind::<BigInt, _>(n.saturating_sub(KEPT))
            .execute(connection)
            .await
            .map_err(failed)?;
    }
    Ok(Fenced::Done(()))
}

async fn replayed(connection: &mut AsyncPgConnection, letter: Uuid) -> QueryResult<()> {
    diesel::delete(follower_replays::table.find(IdColumn(letter)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn change(
    connection: &mut AsyncPgConnection,
    name: &str,
    command: FollowerCommand,
) -> QueryResult<Commanded> {
    AnsiTransactionManager::begin_transaction(connection).await?;
    let done = change_in(connection, name, command).await;
    match done {
        Ok(Commanded::Done) => AnsiTransactionManager::commit_transaction(connection).await?,
        _ => AnsiTransactionManager::rollback_transaction(connection).await?,
    }
    done
}

async fn change_in(
    connection: &mut AsyncPgConnection,
    name: &str,
    command: FollowerCommand,
) -> QueryResult<Commanded> {
    // A step refers to the row while it is under way; only a removal has to wait for it.
    let locked = followers::table.find(name).select(followers::name);
    let known: Option<String> = match command {
        FollowerCommand::Remove => locked.for_update().first(connection).await,
        _ => locked.for_no_key_update().first(connection).await,
    }
    .optional()?;
    if known.is_none() {
        return Ok(Commanded::Unknown);
    }
    let Some(record) = records(connection, Some(name)).await?.pop() else {
        return Ok(Commanded::Unknown);
    };
    let floor: Option<NaiveDate> = floor(connection).await?;
    let end: Option<i64> = log_commits::table
        .select(diesel::dsl::max(log_commits::seq))
        .first(connection)
        .await?;
    let end = behind(end.unwrap_or(0));
    if let Some(reason) = record.refusal(command, floor, end) {
        return Ok(Commanded::Refused(reason));
    }
    let target = followers::table.find(name);
    let revised = (
        followers::revision.eq(followers::revision + 1),
        followers::changed_at.eq(diesel::dsl::now),
    );
    match command {
        FollowerCommand::Pause => {
            let paused = (followers::state.eq(FollowerState::Paused.as_str()), revised);
            diesel::update(target)
                .set(paused)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Resume => {
            let complete_since = match record.state {
                FollowerState::Gapped => floor,
                _ => record.complete_since,
            };
            let running = (
                followers::state.eq(FollowerState::Running.as_str()),
                followers::reason.eq(None::<String>),
                followers::complete_since.eq(complete_since),
                revised,
            );
            diesel::update(target)
                .set(running)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Rebuild { .. } => {
            let rebuild = (
                followers::state.eq(FollowerState::Running.as_str()),
                followers::reason.eq(None::<String>),
                followers::rebuild.eq(true),
                revised,
            );
            diesel::update(target)
                .set(rebuild)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Skip(to) => {
            diesel::update(target)
                .set(revised)
                .execute(connection)
                .await?;
            while diesel::sql_query(SKIP)
                .bind::<Text, _>(name)
                .bind::<BigInt, _>(to.0)
                .execute(connection)
                .await?
                == 0
            {}
        }
        FollowerCommand::Remove => {
            diesel::sql_query(TAKE_BACK)
                .bind::<Text, _>(name)
                .execute(connection)
                .await?;
            diesel::delete(target).execute(connection).await?;
        }
    }
    notify(connection).await?;
    Ok(Commanded::Done)
}

/// What waited to be applied again was not.
const TAKE_BACK: &str = "\
    UPDATE dead_letters SET state = 'dead' \
    WHERE id IN (SELECT letter FROM follower_replays WHERE follower = $1)";

/// Beside a step that is under way the number is taken, and the next one is free after it.
const SKIP: &str = "\
    INSERT INTO follower_positions (follower, n, position) \
    SELECT $1, max(n) + 1, $2 FROM follower_positions WHERE follower = $1 ON CONFLICT DO NOTHING";

async fn notify(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("NOTIFY eclusa_log, '{FOLLOWERS}'"))
        .execute(connection)
        .await?;
    Ok(())
}

async fn floor(connection: &mut AsyncPgConnection) -> QueryResult<Option<NaiveDate>> {
    log_floor::table
        .select(log_floor::complete_since)
        .first(connection)
        .await
}

/// The letter's body is the event as JSON, and its header `position` the place in the log.
const REQUEST: &str = "\
    WITH sent AS ( \
        SELECT letter.id, letter.origin, letter.headers->>'position' AS position, letter.body \
        FROM dead_letters AS letter \
        JOIN unnest($1::uuid[], $2::timestamptz[]) AS sent (id, failed_at) \
            ON letter.id = sent.id AND letter.failed_at = sent.failed_at \
        JOIN followers AS follower ON follower.name = letter.origin \
        WHERE letter.cause = 'follower' AND letter.state = 'dead' \
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
        let declared = eclusa_declare_follower(
            declaration.name.as_str(),
            declaration.kind.as_str(),
            declaration.types.to_vec(),
            declaration.on_error.as_str(),
            declaration.start == Start::Now,
        );
        self.pools
            .sequence(async |connection| diesel::select(declared).get_result(connection).await)
            .await
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
        state: FollowerState,
        reason: &str,
    ) -> Result<(), StoreError> {
        const STOP: &str = "\
            UPDATE followers \
            SET state = $1, reason = $2, revision = revision + 1, changed_at = clock_timestamp() \
            WHERE name = $3 AND state = 'running' \
              AND EXISTS (SELECT FROM leases WHERE name = $4 AND token = $5)";
        let reason = reason.replace('\0', "\u{fffd}");
        let stop = async |connection: &mut AsyncPgConnection| {
            diesel::sql_query(STOP)
                .bind::<Text, _>(state.as_str())
                .bind::<Text, _>(&reason)
                .bind::<Text, _>(name)
                .bind::<Text, _>(&lease.name)
                .bind::<BigInt, _>(lease.token)
                .execute(connection)
                .await
        };
        self.pools.sequence(stop).await.map(drop)
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

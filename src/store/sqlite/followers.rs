//! Followers: declarations, positions, states, and the transaction of a step.

use super::SqliteStore;
use super::connection::SqliteFailure;
use super::dead_letters_read;
use super::dead_letters_write;
use super::leases;
use super::read;
use super::schema::{
    dead_letters as letters, follower_declarations as declarations,
    follower_positions as positions, follower_replays as replays, followers, log_floor,
};
use crate::event::{Cause, StoredEvent};
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::dead_letters::{DeadLetterState, Replayed};
use crate::store::followers::{
    Also, Commanded, Declaration, FollowerCommand, FollowerKind, FollowerRecord, FollowerState,
    FollowerStore, OnError, PendingReplay, Start, Step, lease_name,
};
use crate::store::leases::{Fenced, Lease};
use crate::store::rows::{IdColumn, JsonColumn, TimeColumn};
use crate::store::transaction::{Effect, EffectError, Transaction};
use crate::store::{StoreError, queries};
use crate::supervision::failpoint;
use async_trait::async_trait;
use chrono::NaiveDate;
use diesel::dsl::{exists, max};
use diesel::prelude::*;
use std::sync::Arc;
use tokio::runtime::Handle;
use uuid::Uuid;

/// Positions that are kept before the newest.
const KEPT: i64 = 64;

#[derive(Queryable)]
struct FollowerRow {
    name: String,
    kind: String,
    state: String,
    reason: Option<String>,
    on_error: String,
    revision: i64,
    rebuild: bool,
    complete_since: Option<String>,
}

fn record(connection: &mut SqliteConnection, name: &str) -> QueryResult<Option<FollowerRecord>> {
    let row: Option<FollowerRow> = followers::table
        .find(name)
        .select((
            followers::name,
            followers::kind,
            followers::state,
            followers::reason,
            followers::on_error,
            followers::revision,
            followers::rebuild,
            followers::complete_since,
        ))
        .first(connection)
        .optional()?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (n, position, moved_at): (i64, i64, TimeColumn) = positions::table
        .filter(positions::follower.eq(name))
        .order(positions::n.desc())
        .select((positions::n, positions::position, positions::stored_at))
        .first(connection)?;
    let types: String = declarations::table
        .filter(declarations::follower.eq(name))
        .filter(declarations::holds_from.le(position))
        .order(declarations::holds_from.desc())
        .select(declarations::types)
        .first(connection)?;
    let until: Option<i64> = declarations::table
        .filter(declarations::follower.eq(name))
        .filter(declarations::holds_from.gt(position))
        .order(declarations::holds_from)
        .select(declarations::holds_from)
        .first(connection)
        .optional()?;
    let waiting: i64 = replays::table
        .filter(replays::follower.eq(name))
        .count()
        .get_result(connection)?;
    let run_by = leases::holder(connection, &lease_name(name))?;
    Ok(Some(FollowerRecord {
        name: row.name,
        kind: FollowerKind::parse(&row.kind),
        state: FollowerState::parse(&row.state),
        reason: row.reason,
        on_error: OnError::parse(&row.on_error),
        revision: row.revision,
        rebuild: row.rebuild,
        complete_since: day(row.complete_since),
        n,
        position: Position(position),
        moved_at: moved_at.0,
        types: TypePatterns::new(read_types(&types)?),
        until: until.map_or(Position::MAX, Position),
        replays: waiting.unsigned_abs(),
        run_by,
    }))
}

fn day(text: Option<String>) -> Option<NaiveDate> {
    text.and_then(|text| text.parse().ok())
}

fn read_types(text: &str) -> QueryResult<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
}

fn types_text(types: &TypePatterns) -> String {
    serde_json::Value::from(types.to_vec()).to_string()
}

fn floor(connection: &mut SqliteConnection) -> QueryResult<Option<String>> {
    log_floor::table
        .select(log_floor::complete_since)
        .first(connection)
}

fn declare(
    connection: &mut SqliteConnection,
    declaration: &Declaration,
) -> Result<bool, SqliteFailure> {
    let now = leases::now(connection)?;
    let name = declaration.name.as_str();
    let here = read::last_id(connection)?;
    let declared = |holds_from: i64| {
        (
            declarations::follower.eq(name),
            declarations::holds_from.eq(holds_from),
            declarations::types.eq(types_text(&declaration.types)),
        )
    };
    let Some(known) = newest(connection, name)? else {
        let (from, complete_since) = match declaration.start {
            Start::Now => (here, None),
            Start::Beginning => (0, floor(connection)?),
        };
        diesel::insert_into(followers::table)
            .values((
                followers::name.eq(name),
                followers::kind.eq(declaration.kind.as_str()),
                followers::on_error.eq(declaration.on_error.as_str()),
                followers::complete_since.eq(complete_since),
                followers::declared_at.eq(now),
                followers::changed_at.eq(now),
            ))
            .execute(connection)?;
        diesel::insert_into(declarations::table)
            .values(declared(from))
            .execute(connection)?;
        store_position(connection, name, 0, Position(from))?;
        return Ok(true);
    };
    let wanted = (
        declaration.kind.as_str().to_owned(),
        declaration.on_error.as_str().to_owned(),
        types_text(&declaration.types),
    );
    if known == wanted {
        return Ok(false);
    }
    if known.2 != wanted.2 {
        diesel::replace_into(declarations::table)
            .values(declared(here))
            .execute(connection)?;
    }
    diesel::update(followers::table.find(name))
        .set((
            followers::kind.eq(wanted.0),
            followers::on_error.eq(wanted.1),
            followers::revision.eq(followers::revision + 1),
            followers::changed_at.eq(now),
        ))
        .execute(connection)?;
    Ok(true)
}

/// The newest declaration: kind, `on_error` and types.
fn newest(
    connection: &mut SqliteConnection,
    name: &str,
) -> QueryResult<Option<(String, String, String)>> {
    let follower: Option<(String, String)> = followers::table
        .find(name)
        .select((followers::kind, followers::on_error))
        .first(connection)
        .optional()?;
    let Some((kind, on_error)) = follower else {
        return Ok(None);
    };
    let types = declarations::table
        .filter(declarations::follower.eq(name))
        .order(declarations::holds_from.desc())
        .select(declarations::types)
        .first(connection)?;
    Ok(Some((kind, on_error, types)))
}

fn store_position(
    connection: &mut SqliteConnection,
    follower: &str,
    n: i64,
    to: Position,
) -> QueryResult<()> {
    let now = leases::now(connection)?;
    diesel::insert_into(positions::table)
        .values((
            positions::follower.eq(follower),
            positions::n.eq(n),
            positions::position.eq(to.0),
            positions::stored_at.eq(now),
        ))
        .execute(connection)?;
    if n % KEPT == 0 {
        let old = positions::table
            .filter(positions::follower.eq(follower))
            .filter(positions::n.lt(n.saturating_sub(KEPT)));
        diesel::delete(old).execute(connection)?;
    }
    Ok(())
}

/// The position of the follower that is furthest behind, without the gapped ones.
pub(super) fn least_position(connection: &mut SqliteConnection) -> QueryResult<Option<Position>> {
    let of_followers = current_positions(connection)?;
    Ok(of_followers.into_iter().map(|(_, position)| position).min())
}

/// The followers that have not read what was deleted up to here are gapped.
pub(super) fn gap(connection: &mut SqliteConnection, deleted: Position) -> QueryResult<()> {
    let now = leases::now(connection)?;
    for (name, position) in current_positions(connection)? {
        if position < deleted {
            diesel::update(followers::table.find(name))
                .set((
                    followers::state.eq(FollowerState::Gapped.as_str()),
                    followers::reason.eq("the retention deleted events that were not read"),
                    followers::revision.eq(followers::revision + 1),
                    followers::changed_at.eq(now),
                ))
                .execute(connection)?;
        }
    }
    Ok(())
}

fn current_positions(connection: &mut SqliteConnection) -> QueryResult<Vec<(String, Position)>> {
    let newest: Vec<(String, Option<i64>)> = positions::table
        .inner_join(followers::table.on(followers::name.eq(positions::follower)))
        .filter(followers::state.ne(FollowerState::Gapped.as_str()))
        .group_by(positions::follower)
        .select((positions::follower, max(positions::n)))
        .load(connection)?;
    newest
        .into_iter()
        .map(|(name, n)| {
            let position = positions::table
                .find((&name, n.unwrap_or(0)))
                .select(positions::position)
                .first(connection)?;
            Ok((name, Position(position)))
        })
        .collect()
}

/// Says that the log is complete from this day on only.
pub(super) fn raise_floor(connection: &mut SqliteConnection, since: NaiveDate) -> QueryResult<()> {
    if day(floor(connection)?).is_none_or(|known| known < since) {
        diesel::update(log_floor::table)
            .set(log_floor::complete_since.eq(Some(since.to_string())))
            .execute(connection)?;
    }
    Ok(())
}

/// A failure inside the transaction of a step.
struct StepFailure(EffectError);

impl From<diesel::result::Error> for StepFailure {
    fn from(error: diesel::result::Error) -> Self {
        Self(EffectError::Store(StoreError::sqlite(error)))
    }
}

impl From<SqliteFailure> for StepFailure {
    fn from(SqliteFailure(error): SqliteFailure) -> Self {
        Self(EffectError::Store(error))
    }
}

fn transact(
    connection: &mut SqliteConnection,
    step: Step,
    effect: &dyn Effect,
    runtime: &Handle,
) -> Result<Fenced<()>, StepFailure> {
    let follower = step.follower.as_str();
    let current = followers::table
        .find(follower)
        .filter(followers::revision.eq(step.revision))
        .filter(followers::state.eq(FollowerState::Running.as_str()));
    let n: Option<i64> = positions::table
        .filter(positions::follower.eq(follower))
        .select(max(positions::n))
        .first(connection)?;
    if n != Some(step.n)
        || !leases::is_held(connection, &step.lease)?
        || !diesel::select(exists(current)).get_result::<bool>(connection)?
    {
        return Ok(Fenced::Lost);
    }
    store_position(connection, follower, step.n.saturating_add(1), step.to)?;
    // The thread belongs to the writer: it may block.
    runtime
        .block_on(effect.run(&mut Transaction::Sqlite(connection)))
        .map_err(StepFailure)?;
    match step.also {
        Also::Nothing => {}
        Also::Rebuild => rebuild(connection, follower)?,
        Also::DeadLetter(letter) => {
            dead_letters_write::insert(connection, vec![*letter])?;
        }
        Also::Replayed(letter) => replayed(connection, letter)?,
        Also::ReplayFailed(letter) => {
            replayed(connection, letter.id)?;
            dead_letters_write::insert(connection, vec![*letter])?;
        }
    }
    failpoint::hit("follower.before_commit");
    Ok(Fenced::Done(()))
}

fn replayed(connection: &mut SqliteConnection, letter: Uuid) -> QueryResult<()> {
    diesel::delete(replays::table.find(letter.as_bytes().as_slice())).execute(connection)?;
    Ok(())
}

/// What it subscribes to today holds from the beginning.
fn rebuild(connection: &mut SqliteConnection, follower: &str) -> QueryResult<()> {
    let of_follower = declarations::table.filter(declarations::follower.eq(follower));
    let types: String = of_follower
        .order(declarations::holds_from.desc())
        .select(declarations::types)
        .first(connection)?;
    diesel::delete(declarations::table.filter(declarations::follower.eq(follower)))
        .execute(connection)?;
    diesel::insert_into(declarations::table)
        .values((
            declarations::follower.eq(follower),
            declarations::holds_from.eq(0),
            declarations::types.eq(types),
        ))
        .execute(connection)?;
    // What failed or waits to be applied again comes again with the rest.
    diesel::delete(replays::table.filter(replays::follower.eq(follower))).execute(connection)?;
    let failed = letters::table
        .filter(letters::cause.eq(Cause::Follower.as_str()))
        .filter(letters::origin.eq(follower))
        .filter(letters::state.eq(DeadLetterState::Dead.as_str()));
    diesel::delete(failed).execute(connection)?;
    let complete_since = floor(connection)?;
    let now = leases::now(connection)?;
    diesel::update(followers::table.find(follower))
        .set((
            followers::rebuild.eq(false),
            followers::complete_since.eq(complete_since),
            followers::revision.eq(followers::revision + 1),
            followers::changed_at.eq(now),
        ))
        .execute(connection)?;
    Ok(())
}

fn change(
    connection: &mut SqliteConnection,
    name: &str,
    command: FollowerCommand,
) -> Result<Commanded, SqliteFailure> {
    let Some(record) = record(connection, name)? else {
        return Ok(Commanded::Unknown);
    };
    let floor = floor(connection)?;
    let end = Position(read::last_id(connection)?);
    if let Some(reason) = record.refusal(command, day(floor.clone()), end) {
        return Ok(Commanded::Refused(reason));
    }
    let now = leases::now(connection)?;
    let target = followers::table.find(name);
    let revised = (
        followers::revision.eq(followers::revision + 1),
        followers::changed_at.eq(now),
    );
    let running = (
        followers::state.eq(FollowerState::Running.as_str()),
        followers::reason.eq(None::<String>),
    );
    match command {
        FollowerCommand::Pause => {
            let paused = (followers::state.eq(FollowerState::Paused.as_str()), revised);
            diesel::update(target).set(paused).execute(connection)?;
        }
        FollowerCommand::Resume => {
            let complete_since = match record.state {
                FollowerState::Gapped => floor,
                _ => record.complete_since.map(|day| day.to_string()),
            };
            diesel::update(target)
                .set((
                    running,
                    followers::complete_since.eq(complete_since),
                    revised,
                ))
                .execute(connection)?;
        }
        FollowerCommand::Rebuild { .. } => {
            diesel::update(target)
                .set((running, followers::rebuild.eq(true), revised))
                .execute(connection)?;
        }
        FollowerCommand::Skip(to) => {
            diesel::update(target).set(revised).execute(connection)?;
            store_position(connection, name, record.n.saturating_add(1), to)?;
        }
        FollowerCommand::Remove => {
            // What waited to be applied again was not.
            let waiting = replays::table
                .filter(replays::follower.eq(name))
                .select(replays::letter);
            diesel::update(letters::table.filter(letters::id.eq_any(waiting)))
                .set(letters::state.eq(DeadLetterState::Dead.as_str()))
                .execute(connection)?;
            diesel::delete(target).execute(connection)?;
        }
    }
    Ok(Commanded::Done)
}

fn request(
    connection: &mut SqliteConnection,
    letters: &[Replayed],
) -> Result<Vec<Uuid>, SqliteFailure> {
    let now = leases::now(connection)?;
    let mut requested = Vec::new();
    for sent in letters {
        let Some(letter) = dead_letters_read::get(connection, sent.id)? else {
            continue;
        };
        let follower = followers::table.find(&letter.origin);
        let current = letter.cause() == Cause::Follower
            && letter.state == DeadLetterState::Dead
            && letter.failure.at == sent.failed_at
            && diesel::select(exists(follower)).get_result::<bool>(connection)?;
        let position = letter
            .headers
            .get("position")
            .and_then(|text| text.as_str());
        let (true, Some(position)) = (current, position.and_then(|text| text.parse::<i64>().ok()))
        else {
            continue;
        };
        diesel::insert_or_ignore_into(replays::table)
            .values((
                replays::letter.eq(letter.id.as_bytes().as_slice()),
                replays::follower.eq(&letter.origin),
                replays::position.eq(position),
                replays::event.eq(String::from_utf8_lossy(&letter.body).into_owned()),
                replays::requested_at.eq(now),
            ))
            .execute(connection)?;
        dead_letters_write::mark_replayed(connection, &[*sent])?;
        requested.push(letter.id);
    }
    Ok(requested)
}

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
        state: FollowerState,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (lease, name, reason) = (lease.clone(), name.to_owned(), reason.to_owned());
        self.writer
            .ask(1, move |connection| {
                if leases::is_held(connection, &lease)? {
                    let running = followers::table
                        .find(name)
                        .filter(followers::state.eq(FollowerState::Running.as_str()));
                    let now = leases::now(connection)?;
                    diesel::update(running)
                        .set((
                            followers::state.eq(state.as_str()),
                            followers::reason.eq(reason),
                            followers::revision.eq(followers::revision + 1),
                            followers::changed_at.eq(now),
                        ))
                        .execute(connection)?;
                }
                Ok(())
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

//! The transaction of a step.

use super::connection::SqliteFailure;
use super::dead_letters_write;
use super::follower_records::{floor, store_position};
use super::leases;
use super::schema::{
    dead_letters as letters, follower_declarations as declarations,
    follower_positions as positions, follower_replays as replays, followers, user_interactions,
};
use crate::event::Cause;
use crate::store::StoreError;
use crate::store::dead_letters::DeadLetterState;
use crate::store::followers::{Also, FollowerState, Step};
use crate::store::leases::Fenced;
use crate::store::transaction::{Effect, EffectError, Transaction};
use crate::supervision::failpoint;
use diesel::dsl::{exists, max};
use diesel::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::Handle;
use uuid::Uuid;

/// A failure inside the transaction of a step.
pub(super) struct StepFailure(pub(super) EffectError);

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

pub(super) fn transact(
    connection: &mut SqliteConnection,
    step: Step,
    effect: &dyn Effect,
    runtime: &Handle,
) -> Result<Fenced<()>, StepFailure> {
    let follower = step.follower.as_str();
    let mut current = followers::table.find(follower).into_boxed();
    if let Some(revision) = step.revision {
        current = current
            .filter(followers::revision.eq(revision))
            .filter(followers::state.eq(FollowerState::Running.as_str()));
    }
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
    let n = step.n.saturating_add(1);
    store_position(connection, follower, n, step.to, step.begun)?;
    // The thread belongs to the writer: it may block.
    // A panic that went on from here would leave the writer's transaction in an unknown state, and with it
    // the commands of others.
    catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(effect.run(&mut Transaction::Sqlite(connection)))
    }))
    .unwrap_or_else(|_| {
        let message = "the follower's code panicked";
        Err(StoreError::transient(Cause::Panic, message).into())
    })
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
    // What failed or waits to be applied again comes again with the rest, if the log still has it.
    let logged = user_interactions::table.select(user_interactions::id);
    let waiting = replays::table.filter(replays::follower.eq(follower));
    diesel::delete(waiting.filter(replays::position.eq_any(logged))).execute(connection)?;
    let logged = user_interactions::table.select(user_interactions::event_id.nullable());
    let failed = letters::table
        .filter(letters::event_id.eq_any(logged))
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
